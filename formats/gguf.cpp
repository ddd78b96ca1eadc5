// SPDX-License-Identifier: Apache-2.0
// Parsing. The order of the checks is the design: a count or length is compared with the bytes that are left before
// anything is allocated or skipped by it, and no sum or product of file values is formed before it is known to fit.
#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <numeric>
#include <optional>
#include <utility>

#include "formats/bytes.h"
#include "formats/gguf_parse.h"
#include "formats/text.h"

namespace quern::gguf {
namespace {

constexpr std::uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr std::uint64_t kMaxAlignment = std::uint64_t{1} << 21;
// Smallest encodings: key length, one letter, type, one byte of value; and name length, one letter, n_dims, one
// dimension, type, offset. They bound the entries, and so the memory, by the file's size.
constexpr std::uint64_t kMinValueBytes = 8 + 1 + 4 + 1;
constexpr std::uint64_t kMinTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;
constexpr std::uint64_t kMaxNameBytes = 65535;  // the specification's limit for keys, here for tensor names too

struct TypeName {
    std::size_t size;
    std::string_view name;
};
constexpr std::array<TypeName, 13> kValueTypes = {{{1, "u8"},
                                                   {1, "i8"},
                                                   {2, "u16"},
                                                   {2, "i16"},
                                                   {4, "u32"},
                                                   {4, "i32"},
                                                   {4, "f32"},
                                                   {1, "bool"},
                                                   {0, "string"},
                                                   {0, "array"},
                                                   {8, "u64"},
                                                   {8, "i64"},
                                                   {8, "f64"}}};

/// Product of the dimensions, or nothing if it passes the largest signed 64-bit integer.
std::optional<std::uint64_t> element_count(const Tensor& t) {
    std::uint64_t n = 1;
    for (const std::uint64_t d : t.ne) {
        if (d != 0 && n > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) / d) return std::nullopt;
        n *= d;
    }
    return n;
}

}  // namespace

std::size_t scalar_size(ValueType t) {
    const auto i = static_cast<std::size_t>(t);
    return i < kValueTypes.size() ? kValueTypes[i].size : 0;
}

std::string_view value_type_name(ValueType t) {
    const auto i = static_cast<std::size_t>(t);
    return i < kValueTypes.size() ? kValueTypes[i].name : "unknown";
}

namespace {

/// Reads one file. Every member that parses part of it returns an Error made by fail().
class Parser {
public:
    Parser(std::span<const std::byte> bytes, const std::string& name) : bytes_(bytes), in_(bytes), file_(name) {}

    Result<Parsed> run() {
        if (Status s = header(); !s) return std::move(s).error();
        out_.values.reserve(static_cast<std::size_t>(n_values_));
        for (std::uint64_t i = 0; i < n_values_; ++i) {
            if (Status s = value(i); !s) return std::move(s).error();
        }
        out_.by_key = name_order(out_.values);
        if (const Value* v = first_repeated(out_.values, out_.by_key)) {
            return fail(v->offset, cat("key ", quoted(v->key), " appears twice; each key may stand once"));
        }
        if (Status s = read_alignment(); !s) return std::move(s).error();
        // Again, now that the metadata are behind: both reservations together stay within the file's size.
        if (Status s = check_count(8, n_tensors_, kMinTensorBytes, " tensors"); !s) return std::move(s).error();
        out_.tensors.reserve(static_cast<std::size_t>(n_tensors_));
        offsets_.reserve(static_cast<std::size_t>(n_tensors_));
        for (std::uint64_t i = 0; i < n_tensors_; ++i) {
            if (Status s = tensor(i); !s) return std::move(s).error();
        }
        if (Status s = place(); !s) return std::move(s).error();
        return std::move(out_);
    }

private:
    Error fail(std::uint64_t offset, std::string_view what, Errc code = Errc::bad_file) const {
        return {code, cat(file_, ": ", what, " (at byte ", offset, ")")};
    }
    Error cut_short(std::string_view what) const {
        return fail(in_.offset(), cat("the file ends inside ", what, ", ", in_.remaining(),
                                      " bytes are left; it is truncated or damaged, fetch it again"));
    }

    Status header() {
        if (bytes_.empty()) return fail(0, "the file is empty; fetch it again");
        std::uint32_t magic = 0;
        if (!in_.read(magic)) return cut_short("the magic number");
        if (magic != kMagic) {
            return fail(0, "not a GGUF file, it does not start with 'GGUF'; convert the model to GGUF");
        }
        if (!in_.read(out_.version)) return cut_short("the version");
        if (out_.version != 2 && out_.version != 3) return unsupported_version();
        if (!in_.read(n_tensors_) || !in_.read(n_values_)) return cut_short("the header");
        if (Status s = check_count(16, n_values_, kMinValueBytes, " metadata entries"); !s) return s;
        if (Status s = check_count(8, n_tensors_, kMinTensorBytes, " tensors"); !s) return s;
        return {};
    }

    /// `n` entries of at least `least` bytes must fit in what is left of the file.
    Status check_count(std::uint64_t at, std::uint64_t n, std::uint64_t least, std::string_view entries) const {
        if (n <= in_.remaining() / least) return {};
        return fail(at, cat("the header declares ", n, entries, ", but only ", in_.remaining(),
                            " bytes follow; the file is truncated or damaged, fetch it again"));
    }

    Error unsupported_version() const {
        const std::uint32_t version = out_.version;
        if (version == 1) {
            return fail(4, "GGUF version 1 is not supported; convert the model again with current tools",
                        Errc::unsupported);
        }
        if (version != 0 && (version & 0xffff) == 0) {
            return fail(4, "the file is big-endian; convert it with gguf_convert_endian.py", Errc::unsupported);
        }
        return fail(4,
                    cat("GGUF version ", version, " is not supported (2 and 3 are); update Quern or convert the model"),
                    Errc::unsupported);
    }

    /// A length-prefixed string; `what` and the key name it in errors. Two parts, because joining them costs an
    /// allocation, which for the strings of a vocabulary would take longer than reading them.
    Status string(std::string_view part, std::string_view key, std::string_view& out) {
        const auto what = [&] { return key.empty() ? std::string(part) : cat(part, " of key ", quoted(key)); };
        const std::uint64_t at = in_.offset();
        std::uint64_t length = 0;
        if (!in_.read(length)) return cut_short(what());
        std::span<const std::byte> raw;
        if (!in_.read_bytes(length, raw)) {
            return fail(at, cat(what(), " declares a length of ", length, " bytes, but ", in_.remaining(),
                                " are left; the file is truncated or damaged, fetch it again"));
        }
        out = as_text(raw);
        return {};
    }

    Status name(std::string_view what, std::string_view& out) {
        const std::uint64_t at = in_.offset();
        if (Status s = string(what, {}, out); !s) return s;
        if (out.empty()) return fail(at, cat(what, " is empty; convert the model again"));
        if (out.size() > kMaxNameBytes) {
            return fail(at, cat(what, " is ", out.size(), " bytes long, at most ", kMaxNameBytes,
                                " are allowed; convert the model again"));
        }
        return {};
    }

    Status value_type(std::string_view key, std::string_view what, ValueType& out) {
        const std::uint64_t at = in_.offset();
        std::uint32_t id = 0;
        if (!in_.read(id)) return cut_short(cat("the type of key ", quoted(key)));
        if (id >= kValueTypes.size()) {
            return fail(at, cat("key ", quoted(key), " has unknown ", what, " type ", id,
                                "; the file is damaged, or newer than this reader"));
        }
        out = static_cast<ValueType>(id);
        return {};
    }

    Status value(std::uint64_t index) {
        Value& v = out_.values.emplace_back();
        if (Status s = name(cat("key ", index), v.key); !s) return s;
        if (Status s = value_type(v.key, "value", v.type); !s) return s;
        v.offset = in_.offset();
        if (v.type == ValueType::string) return string("the string", v.key, v.string);
        if (v.type == ValueType::array) return array(v);
        std::span<const std::byte> raw;
        if (!in_.read_bytes(scalar_size(v.type), raw)) return cut_short(cat("the value of key ", quoted(v.key)));
        v.bits = load_le(raw.data(), raw.size());
        if (v.type == ValueType::boolean && v.bits > 1) {
            return fail(v.offset, cat("key ", quoted(v.key), " is a bool with the value ", v.bits,
                                      ", it must be 0 or 1; convert the model again"));
        }
        return {};
    }

    Status array(Value& v) {
        Array& a = v.array;
        if (Status s = value_type(v.key, "array element", a.element); !s) return s;
        if (a.element == ValueType::array) {
            return fail(v.offset, cat("key ", quoted(v.key), " is an array of arrays, which is not supported"),
                        Errc::unsupported);
        }
        if (!in_.read(a.count)) return cut_short(cat("the array of key ", quoted(v.key)));
        const bool text = a.element == ValueType::string;
        const std::uint64_t least = text ? 8 : scalar_size(a.element);  // bytes of an element, for a string at least
        if (a.count > in_.remaining() / least) {
            return fail(v.offset, cat("key ", quoted(v.key), " declares an array of ", a.count, " ",
                                      value_type_name(a.element), " elements, but ", in_.remaining(),
                                      " bytes are left; the file is truncated or damaged, fetch it again"));
        }
        if (text) {
            a.strings.resize(static_cast<std::size_t>(a.count));
            for (std::string_view& s : a.strings) {
                if (Status st = string("an array string", v.key, s); !st) return st;
            }
            return {};
        }
        (void)in_.read_bytes(a.count * least, a.bytes);  // cannot fail: compared above
        if (a.element != ValueType::boolean) return {};
        const auto odd = std::find_if(a.bytes.begin(), a.bytes.end(), [](std::byte b) { return b > std::byte{1}; });
        if (odd == a.bytes.end()) return {};
        return fail(v.offset,
                    cat("key ", quoted(v.key), " is an array of bool with the value ", std::to_integer<int>(*odd),
                        " at index ", odd - a.bytes.begin(), ", it must be 0 or 1; convert the model again"));
    }

    Status read_alignment() {
        const Value* v = find_by_name(out_.values, out_.by_key, "general.alignment");
        if (!v) return {};
        if (v->type != ValueType::u32) {
            return fail(v->offset, cat("key 'general.alignment' has type ", value_type_name(v->type),
                                       ", it must be u32; convert the model again"));
        }
        if (!std::has_single_bit(v->bits) || v->bits < 8 || v->bits > kMaxAlignment) {
            return fail(v->offset, cat("key 'general.alignment' is ", v->bits, ", it must be a power of two from 8 to ",
                                       kMaxAlignment, "; convert the model again"));
        }
        out_.alignment = v->bits;
        return {};
    }

    Status tensor(std::uint64_t index) {
        Tensor& t = out_.tensors.emplace_back();
        const std::uint64_t at = in_.offset();
        if (Status s = name(cat("the name of tensor ", index), t.name); !s) return s;
        if (!in_.read(t.n_dims)) return cut_short(cat("tensor ", quoted(t.name)));
        if (t.n_dims < 1 || t.n_dims > 4) {
            return fail(at, cat("tensor ", quoted(t.name), " has ", t.n_dims,
                                " dimensions, 1 to 4 are supported; convert the model again"));
        }
        for (std::uint32_t d = 0; d < t.n_dims; ++d) {
            if (!in_.read(t.ne[d])) return cut_short(cat("the dimensions of tensor ", quoted(t.name)));
            if (t.ne[d] == 0) {
                return fail(at, cat("tensor ", quoted(t.name), " has no elements, dimension ", d,
                                    " is 0; convert the model again"));
            }
        }
        std::uint32_t id = 0;
        std::uint64_t offset = 0;
        if (!in_.read(id) || !in_.read(offset)) return cut_short(cat("tensor ", quoted(t.name)));
        const QuantInfo* q = info_by_id(id);
        if (!q) {
            return fail(at,
                        cat("tensor ", quoted(t.name), " has type id ", id,
                            ", which Quern does not know; requantize the model, for example to Q4_K or Q8_0"),
                        Errc::unsupported);
        }
        t.type = q->type;
        offsets_.push_back({at, offset, 0});
        return measure(t, *q);
    }

    /// Sets the byte size of the last tensor read. The data are placed once the directory's end is known.
    Status measure(const Tensor& t, const QuantInfo& q) {
        Pending& p = offsets_.back();
        const std::optional<std::uint64_t> n = element_count(t);
        const std::string shape = cat("[", t.ne[0], ", ", t.ne[1], ", ", t.ne[2], ", ", t.ne[3], "]");
        if (!n) {
            return fail(p.entry, cat("tensor ", quoted(t.name), " of shape ", shape,
                                     " has more elements than 64 bits count; the file is damaged, fetch it again"));
        }
        if (t.ne[0] % q.block_elements != 0) {
            return fail(p.entry, cat("tensor ", quoted(t.name), " has rows of ", t.ne[0], " values, not a multiple of ",
                                     q.name, "'s block of ", q.block_elements, "; convert the model again"));
        }
        const std::optional<std::uint64_t> size = row_bytes(t.type, *n);  // rows are whole blocks
        if (!size || *size > bytes_.size()) {
            return fail(p.entry, cat("tensor ", quoted(t.name), " of type ", q.name, " and shape ", shape,
                                     " is larger than the file of ", bytes_.size(),
                                     " bytes; it is truncated or damaged, fetch it again"));
        }
        p.size = *size;
        return {};
    }

    /// Gives each tensor its bytes, and checks that they lie in the file, aligned and apart.
    Status place() {
        if (out_.tensors.empty()) return {};
        const std::uint64_t alignment = out_.alignment;
        // No wrap: the cursor is inside the file and the alignment is at most kMaxAlignment.
        const std::uint64_t start = (in_.offset() + alignment - 1) / alignment * alignment;
        const std::uint64_t room = start < bytes_.size() ? bytes_.size() - start : 0;
        for (std::size_t i = 0; i < out_.tensors.size(); ++i) {
            const Pending& p = offsets_[i];
            Tensor& t = out_.tensors[i];
            if (p.offset % alignment != 0) {
                return fail(p.entry, cat("tensor ", quoted(t.name), " has data offset ", p.offset,
                                         ", not a multiple of the alignment ", alignment, "; convert the model again"));
            }
            if (p.offset > room || p.size > room - p.offset) {
                return fail(p.entry, cat("tensor ", quoted(t.name), " needs ", p.size, " bytes at data offset ",
                                         p.offset, ", but the file holds ", room,
                                         " bytes of data; it is truncated or damaged, fetch it again"));
            }
            t.data = bytes_.subspan(static_cast<std::size_t>(start + p.offset), static_cast<std::size_t>(p.size));
        }
        return check_apart();
    }

    Status check_apart() const {
        std::vector<std::size_t> order(out_.tensors.size());
        std::iota(order.begin(), order.end(), std::size_t{0});
        std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
            return std::pair(offsets_[a].offset, a) < std::pair(offsets_[b].offset, b);
        });
        for (std::size_t i = 1; i < order.size(); ++i) {
            const Pending &a = offsets_[order[i - 1]], &b = offsets_[order[i]];
            if (b.offset - a.offset < a.size) {
                return fail(b.entry, cat("tensor ", quoted(out_.tensors[order[i]].name), " at data offset ", b.offset,
                                         " overlaps tensor ", quoted(out_.tensors[order[i - 1]].name), ", ", a.size,
                                         " bytes at ", a.offset, "; convert the model again"));
            }
        }
        return {};
    }

    struct Pending {
        std::uint64_t entry;   // of the directory entry in the file, for error text
        std::uint64_t offset;  // of the data, from the start of the data section
        std::uint64_t size;
    };
    std::span<const std::byte> bytes_;
    ByteCursor in_;
    const std::string& file_;
    Parsed out_;
    std::uint64_t n_values_ = 0, n_tensors_ = 0;
    std::vector<Pending> offsets_;
};

}  // namespace

Result<Parsed> parse_one(std::span<const std::byte> bytes, const std::string& name) {
    return Parser(bytes, name).run();
}

}  // namespace quern::gguf
