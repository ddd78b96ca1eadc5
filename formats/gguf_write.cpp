// SPDX-License-Identifier: Apache-2.0
#include "formats/gguf_write.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "formats/atomic_file.h"
#include "formats/text.h"

namespace quern::gguf {
namespace {

void append_le(std::vector<std::byte>& out, std::uint64_t bits, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) out.push_back(static_cast<std::byte>(bits >> (8 * i)));
}

void append_text(std::vector<std::byte>& out, std::string_view text) {
    append_le(out, text.size(), 8);
    const auto* p = reinterpret_cast<const std::byte*>(text.data());
    out.insert(out.end(), p, p + text.size());
}

std::uint64_t padding(std::uint64_t size, std::uint64_t alignment) {
    return (alignment - size % alignment) % alignment;
}

Status check_names(std::vector<std::string_view> names, std::string_view kind) {
    std::sort(names.begin(), names.end());
    for (std::size_t i = 0; i < names.size(); ++i) {
        if (names[i].empty()) return Error{Errc::invalid_argument, cat("a ", kind, " to be written has no name")};
        if (i > 0 && names[i] == names[i - 1]) {
            return Error{Errc::invalid_argument, cat(kind, " ", quoted(names[i]), " was added twice")};
        }
    }
    return {};
}

}  // namespace

Writer::Writer(std::uint32_t alignment) : alignment_(alignment) {
    if (alignment != 32) add("general.alignment", alignment);
}

void Writer::put_le(std::uint64_t bits, std::size_t size) { append_le(values_, bits, size); }
void Writer::put_text(std::string_view text) { append_text(values_, text); }

void Writer::begin(std::string_view key, ValueType type) {
    keys_.emplace_back(key);
    put_text(key);
    put_le(static_cast<std::uint32_t>(type), 4);
}

void Writer::begin_array(std::string_view key, ValueType element, std::uint64_t count) {
    begin(key, ValueType::array);
    put_le(static_cast<std::uint32_t>(element), 4);
    put_le(count, 8);
}

void Writer::add(std::string_view key, std::string_view text) {
    begin(key, ValueType::string);
    put_text(text);
}

void Writer::add_array(std::string_view key, std::span<const std::string_view> texts) {
    begin_array(key, ValueType::string, texts.size());
    for (const std::string_view t : texts) put_text(t);
}

void Writer::add(const Value& value) {
    if (value.key == "general.alignment") return;
    if (value.type == ValueType::string) return add(value.key, value.string);
    if (value.type != ValueType::array) {
        begin(value.key, value.type);
        return put_le(value.bits, scalar_size(value.type));
    }
    if (value.array.element == ValueType::string) return add_array(value.key, value.array.strings);
    begin_array(value.key, value.array.element, value.array.count);
    values_.insert(values_.end(), value.array.bytes.begin(), value.array.bytes.end());
}

void Writer::add_tensor(std::string_view name, DType type, std::span<const std::uint64_t> ne,
                        std::span<const std::byte> data) {
    tensors_.push_back({std::string(name), type, {ne.begin(), ne.end()}, data});
}

Status Writer::check() const {
    if (!std::has_single_bit(alignment_) || alignment_ < 8 || alignment_ > (1u << 21)) {
        return Error{Errc::invalid_argument, cat("alignment ", alignment_, " is not a power of two from 8 to 2097152")};
    }
    if (Status s = check_names({keys_.begin(), keys_.end()}, "key"); !s) return s;
    std::vector<std::string_view> names;
    for (const Pending& t : tensors_) {
        names.push_back(t.name);
        std::uint64_t rows = 1;
        bool fits = t.ne.size() >= 1 && t.ne.size() <= 4;
        for (std::size_t d = 0; fits && d < t.ne.size(); ++d) {
            fits = t.ne[d] > 0 && (d == 0 || rows <= t.data.size() / t.ne[d]);
            if (d > 0) rows *= t.ne[d];
        }
        const auto row = fits ? row_bytes(t.type, t.ne[0]) : std::nullopt;
        if (!row || t.data.size() % rows != 0 || *row != t.data.size() / rows) {
            return Error{Errc::invalid_argument,
                         cat("tensor ", quoted(t.name), ": its shape and type ", info(t.type).name, " do not make ",
                             t.data.size(), " bytes of data")};
        }
    }
    return check_names(std::move(names), "tensor");
}

std::vector<std::byte> Writer::head() const {
    std::vector<std::byte> out;
    for (const char c : std::string_view("GGUF")) out.push_back(static_cast<std::byte>(c));
    append_le(out, 3, 4);
    append_le(out, tensors_.size(), 8);
    append_le(out, keys_.size(), 8);
    out.insert(out.end(), values_.begin(), values_.end());
    std::uint64_t offset = 0;
    for (const Pending& t : tensors_) {
        append_text(out, t.name);
        append_le(out, t.ne.size(), 4);
        for (const std::uint64_t d : t.ne) append_le(out, d, 8);
        append_le(out, static_cast<std::uint32_t>(t.type), 4);
        append_le(out, offset, 8);
        offset += t.data.size() + padding(t.data.size(), alignment_);
    }
    out.resize(out.size() + padding(out.size(), alignment_));
    return out;
}

Result<std::vector<std::byte>> Writer::to_bytes() const {
    if (Status s = check(); !s) return std::move(s).error();
    std::vector<std::byte> out = head();
    for (const Pending& t : tensors_) {
        out.insert(out.end(), t.data.begin(), t.data.end());
        out.resize(out.size() + padding(t.data.size(), alignment_));
    }
    return out;
}

Status Writer::to_file(const std::string& path) const {
    if (Status s = check(); !s) return s;
    AtomicFile file;
    if (Status s = file.create(path); !s) return s;
    if (Status s = file.write(head()); !s) return s;
    const std::vector<std::byte> zeros(alignment_);
    for (const Pending& t : tensors_) {
        if (Status s = file.write(t.data); !s) return s;
        if (Status s = file.write(std::span(zeros).first(padding(t.data.size(), alignment_))); !s) return s;
    }
    return file.finish();
}

}  // namespace quern::gguf
