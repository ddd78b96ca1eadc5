// SPDX-License-Identifier: Apache-2.0
// Joining the files of a split, look-ups and typed reads.
#include <bit>
#include <cstdio>
#include <limits>
#include <optional>
#include <utility>

#include "formats/bytes.h"
#include "formats/gguf_parse.h"
#include "formats/text.h"

namespace quern::gguf {

struct File::Index {
    std::vector<std::size_t> by_key, by_tensor;
};

namespace {

/// The parts of a name such as "model-00001-of-00003.gguf".
struct SplitName {
    std::string prefix;
    std::uint32_t number = 0, count = 0;  // number counts from 1

    std::string path(std::uint32_t part) const {
        char tail[40];
        std::snprintf(tail, sizeof tail, "-%05u-of-%05u.gguf", part, count);
        return prefix + tail;
    }
};

std::optional<std::uint32_t> five_digits(std::string_view s) {
    std::uint32_t v = 0;
    for (const char c : s) {
        if (c < '0' || c > '9') return std::nullopt;
        v = v * 10 + static_cast<std::uint32_t>(c - '0');
    }
    return v;
}

std::optional<SplitName> split_name(std::string_view path) {
    constexpr std::string_view shape = "-00000-of-00000.gguf";
    if (path.size() < shape.size()) return std::nullopt;
    const std::string_view tail = path.substr(path.size() - shape.size());
    const auto number = five_digits(tail.substr(1, 5)), count = five_digits(tail.substr(10, 5));
    if (tail[0] != '-' || tail.substr(6, 4) != "-of-" || tail.substr(15) != ".gguf" || !number || !count) {
        return std::nullopt;
    }
    return SplitName{std::string(path.substr(0, path.size() - shape.size())), *number, *count};
}

Error bad_value(const std::string& file, const Value& v, std::string_view what) {
    const std::string type = v.type == ValueType::array ? cat("array of ", value_type_name(v.array.element))
                                                        : std::string(value_type_name(v.type));
    return {Errc::bad_file, cat(file, ": key ", quoted(v.key), " of type ", type, " ", what,
                                "; convert the model again (at byte ", v.offset, ")")};
}

struct Integer {
    bool negative = false;
    std::uint64_t bits = 0;  // two's complement of the value
};

std::optional<Integer> as_integer(ValueType type, std::uint64_t bits) {
    const auto sign_extended = [&](auto narrow) {
        const auto v = static_cast<std::int64_t>(narrow);
        return Integer{v < 0, static_cast<std::uint64_t>(v)};
    };
    switch (type) {
        case ValueType::u8:
        case ValueType::u16:
        case ValueType::u32:
        case ValueType::u64:
            return Integer{false, bits};
        case ValueType::i8:
            return sign_extended(static_cast<std::int8_t>(bits));
        case ValueType::i16:
            return sign_extended(static_cast<std::int16_t>(bits));
        case ValueType::i32:
            return sign_extended(static_cast<std::int32_t>(bits));
        case ValueType::i64:
            return sign_extended(static_cast<std::int64_t>(bits));
        default:
            return std::nullopt;
    }
}

std::optional<std::int64_t> as_signed(Integer i) {
    if (!i.negative && i.bits > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
        return std::nullopt;
    }
    return static_cast<std::int64_t>(i.bits);
}

std::optional<double> as_real(ValueType type, std::uint64_t bits) {
    if (type == ValueType::f32) {
        return static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(bits)));
    }
    if (type == ValueType::f64) return std::bit_cast<double>(bits);
    return std::nullopt;
}

std::uint64_t element_bits(const Array& a, std::uint64_t i) {
    const std::size_t size = scalar_size(a.element);
    return load_le(a.bytes.data() + i * size, size);
}

/// The split keys of a part must say what its name says.
Status check_part(const File& f, const SplitName& name, std::uint32_t part) {
    auto number = f.get_uint("split.no"), parts = f.get_uint("split.count");
    if (!number) return std::move(number).error();
    if (!parts) return std::move(parts).error();
    if (*number == part - 1 && *parts == name.count) return {};
    return Error{Errc::bad_file, cat(f.path(), ": named as part ", part, " of ", name.count, ", but key 'split.no' is ",
                                     *number, " (counting from 0) and key 'split.count' is ", *parts,
                                     "; give the parts their original names or fetch them again")};
}

}  // namespace

Result<File> File::parse(std::span<const std::byte> bytes, std::string name) {
    auto parsed = parse_one(bytes, name);
    if (!parsed) return std::move(parsed).error();
    File f;
    f.path_ = std::move(name);
    f.file_size_ = bytes.size();
    f.version_ = parsed->version;
    f.alignment_ = parsed->alignment;
    f.values_ = std::move(parsed->values);
    f.tensors_ = std::move(parsed->tensors);
    Index index{std::move(parsed->by_key), name_order(f.tensors_)};
    if (const Tensor* t = first_repeated(f.tensors_, index.by_tensor)) {
        const auto at = reinterpret_cast<const std::byte*>(t->name.data()) - bytes.data();
        return Error{Errc::bad_file, cat(f.path_, ": tensor ", quoted(t->name),
                                         " appears twice; convert the model again (at byte ", at, ")")};
    }
    f.index_ = std::make_shared<const Index>(std::move(index));
    return f;
}

Result<File> File::open(const std::string& path) {
    const auto open_one = [](const std::string& p) -> Result<File> {
        auto map = MappedFile::open(p);
        if (!map) return std::move(map).error();
        auto f = parse((*map)->bytes(), p);
        if (f) f->maps_.push_back(std::move(*map));
        return f;
    };
    auto opened = open_one(path);
    if (!opened) return opened;
    File whole = std::move(*opened);
    const auto name = split_name(path);
    const auto count = whole.get_uint_or("split.count", 0);
    if (!count) return count.error();
    if (*count <= 1 && (!name || name->count <= 1)) return whole;
    if (!name) {
        return Error{Errc::bad_file, cat(path, ": key 'split.count' says that this is one of ", *count,
                                         " parts, but the file is not named like model-00001-of-00003.gguf; give the "
                                         "parts their original names")};
    }
    if (name->number != 1) {
        return Error{Errc::invalid_argument, cat(path, ": this is part ", name->number, " of ", name->count,
                                                 "; open the first part, ", name->path(1))};
    }
    if (Status s = check_part(whole, *name, 1); !s) return std::move(s).error();
    for (std::uint32_t part = 2; part <= name->count; ++part) {
        auto next = open_one(name->path(part));
        if (!next) {
            return Error{next.error().code, cat("part ", part, " of ", name->count, ": ", next.error().message,
                                                "; all parts must lie in one folder")};
        }
        if (Status s = check_part(*next, *name, part); !s) return std::move(s).error();
        whole.append(std::move(*next), part - 1);
    }
    if (Status s = whole.finish_split(); !s) return std::move(s).error();
    return whole;
}

void File::append(File part, std::uint32_t split) {
    file_size_ += part.file_size_;
    for (Tensor& t : part.tensors_) {
        t.split = split;
        tensors_.push_back(t);
    }
    maps_.push_back(std::move(part.maps_.front()));
}

Status File::finish_split() {
    const auto expected = get_uint_or("split.tensors.count", tensors_.size());
    if (!expected) return expected.error();
    if (*expected != tensors_.size()) {
        return Error{Errc::bad_file,
                     cat(path_, ": key 'split.tensors.count' is ", *expected, ", but the ", maps_.size(),
                         " parts hold ", tensors_.size(), " tensors; fetch the parts again")};
    }
    Index index{index_->by_key, name_order(tensors_)};
    if (const Tensor* t = first_repeated(tensors_, index.by_tensor)) {
        return Error{Errc::bad_file, cat(maps_[t->split]->path(), ": tensor ", quoted(t->name),
                                         " is in an earlier part too; fetch the parts again")};
    }
    index_ = std::make_shared<const Index>(std::move(index));
    return {};
}

const Value* File::find(std::string_view key) const {
    return index_ ? find_by_name(values_, index_->by_key, key) : nullptr;
}

const Tensor* File::find_tensor(std::string_view name) const {
    return index_ ? find_by_name(tensors_, index_->by_tensor, name) : nullptr;
}

Result<const Value*> File::need(std::string_view key) const {
    if (const Value* v = find(key)) return v;
    return Error{Errc::bad_file, cat(path_, ": key ", quoted(key), " is missing; convert the model again")};
}

Result<std::uint64_t> File::get_uint(std::string_view key) const {
    const auto v = need(key);
    if (!v) return v.error();
    const auto i = as_integer((*v)->type, (*v)->bits);
    if (!i) return bad_value(path_, **v, "must be an integer");
    if (i->negative) {
        return bad_value(path_, **v, cat("is ", static_cast<std::int64_t>(i->bits), ", it must not be negative"));
    }
    return i->bits;
}

Result<std::int64_t> File::get_int(std::string_view key) const {
    const auto v = need(key);
    if (!v) return v.error();
    const auto i = as_integer((*v)->type, (*v)->bits);
    if (!i) return bad_value(path_, **v, "must be an integer");
    const auto n = as_signed(*i);
    if (!n) return bad_value(path_, **v, cat("is ", i->bits, ", past the largest signed 64-bit integer"));
    return *n;
}

Result<double> File::get_float(std::string_view key) const {
    const auto v = need(key);
    if (!v) return v.error();
    if (const auto r = as_real((*v)->type, (*v)->bits)) return *r;
    const auto i = as_integer((*v)->type, (*v)->bits);
    if (!i) return bad_value(path_, **v, "must be a number");
    return i->negative ? static_cast<double>(static_cast<std::int64_t>(i->bits)) : static_cast<double>(i->bits);
}

Result<bool> File::get_bool(std::string_view key) const {
    const auto v = need(key);
    if (!v) return v.error();
    if ((*v)->type != ValueType::boolean) return bad_value(path_, **v, "must be a bool");
    return (*v)->bits != 0;
}

Result<std::string_view> File::get_string(std::string_view key) const {
    const auto v = need(key);
    if (!v) return v.error();
    if ((*v)->type != ValueType::string) return bad_value(path_, **v, "must be a string");
    return (*v)->string;
}

Result<std::uint64_t> File::get_uint_or(std::string_view key, std::uint64_t fallback) const {
    return find(key) ? get_uint(key) : Result<std::uint64_t>(fallback);
}

Result<double> File::get_float_or(std::string_view key, double fallback) const {
    return find(key) ? get_float(key) : Result<double>(fallback);
}

Result<bool> File::get_bool_or(std::string_view key, bool fallback) const {
    return find(key) ? get_bool(key) : Result<bool>(fallback);
}

Result<std::string_view> File::get_string_or(std::string_view key, std::string_view fallback) const {
    return find(key) ? get_string(key) : Result<std::string_view>(fallback);
}

Result<const Value*> File::need_array(std::string_view key) const {
    auto v = need(key);
    if (v && (*v)->type != ValueType::array) return bad_value(path_, **v, "must be an array");
    return v;
}

Result<std::vector<std::int64_t>> File::get_int_array(std::string_view key) const {
    const auto v = need_array(key);
    if (!v) return v.error();
    const Array& a = (*v)->array;
    // A bool is read as the u8 that it is.
    const ValueType element = a.element == ValueType::boolean ? ValueType::u8 : a.element;
    if (!as_integer(element, 0)) return bad_value(path_, **v, "must be an array of integers");
    std::vector<std::int64_t> out(static_cast<std::size_t>(a.count));
    for (std::size_t i = 0; i < out.size(); ++i) {
        const auto n = as_signed(*as_integer(element, element_bits(a, i)));
        if (!n) {
            return bad_value(
                path_, **v,
                cat("has ", element_bits(a, i), " at index ", i, ", past the largest signed 64-bit integer"));
        }
        out[i] = *n;
    }
    return out;
}

Result<std::vector<float>> File::get_float_array(std::string_view key) const {
    const auto v = need_array(key);
    if (!v) return v.error();
    const Array& a = (*v)->array;
    if (!as_real(a.element, 0)) return bad_value(path_, **v, "must be an array of f32 or f64");
    std::vector<float> out(static_cast<std::size_t>(a.count));
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<float>(*as_real(a.element, element_bits(a, i)));
    return out;
}

Result<std::span<const std::string_view>> File::get_string_array(std::string_view key) const {
    const auto v = need_array(key);
    if (!v) return v.error();
    if ((*v)->array.element != ValueType::string) return bad_value(path_, **v, "must be an array of strings");
    return std::span<const std::string_view>((*v)->array.strings);
}

}  // namespace quern::gguf
