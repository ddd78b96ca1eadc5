// SPDX-License-Identifier: Apache-2.0
#include "tools/inspect/info.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <map>
#include <string_view>
#include <utility>

#include "formats/dtype.h"
#include "formats/text.h"
#include "tools/common/process.h"

namespace quern::tools {

using Json = nlohmann::ordered_json;

namespace {

/// A scalar from its little-endian bits, zero-extended.
Json scalar(gguf::ValueType type, std::uint64_t bits) {
    using enum gguf::ValueType;
    switch (type) {
        case boolean: return bits != 0;
        case i8: return static_cast<std::int8_t>(bits);
        case i16: return static_cast<std::int16_t>(bits);
        case i32: return static_cast<std::int32_t>(bits);
        case i64: return static_cast<std::int64_t>(bits);
        case f32: return std::bit_cast<float>(static_cast<std::uint32_t>(bits));
        case f64: return std::bit_cast<double>(bits);
        case u8:
        case u16:
        case u32:
        case u64: return bits;
        case string:
        case array: break;
    }
    return nullptr;
}

Json array_values(const gguf::Array& array) {
    Json out = Json::array();
    for (const std::string_view s : array.strings) out.push_back(s);
    const std::size_t size = gguf::scalar_size(array.element);
    for (std::size_t at = 0; size > 0 && at + size <= array.bytes.size(); at += size) {
        std::uint64_t bits = 0;
        std::memcpy(&bits, array.bytes.data() + at, size);
        out.push_back(scalar(array.element, bits));
    }
    return out;
}

Json value_json(const gguf::Value& value, std::size_t max_array) {
    if (value.type == gguf::ValueType::string) return value.string;
    if (value.type != gguf::ValueType::array) return scalar(value.type, value.bits);
    if (value.array.count <= max_array) return array_values(value.array);
    return {{"type", gguf::value_type_name(value.array.element)}, {"count", value.array.count}};
}

/// Bytes and values by tensor type, most bytes first.
struct TypeSum {
    std::string type;
    std::uint64_t n_tensors = 0, n_elements = 0, n_bytes = 0;
};

std::vector<TypeSum> sums_by_type(const gguf::File& file) {
    std::map<DType, TypeSum> sums;
    for (const gguf::Tensor& t : file.tensors()) {
        TypeSum& sum = sums[t.type];
        sum.type = info(t.type).name;
        sum.n_tensors += 1;
        sum.n_elements += t.n_elements();
        sum.n_bytes += t.data.size();
    }
    std::vector<TypeSum> out;
    for (auto& [type, sum] : sums) out.push_back(std::move(sum));
    std::sort(out.begin(), out.end(), [](const TypeSum& a, const TypeSum& b) { return a.n_bytes > b.n_bytes; });
    return out;
}

std::uint64_t count_params(const gguf::File& file) {
    std::uint64_t n = 0;
    for (const gguf::Tensor& t : file.tensors()) n += t.n_elements();
    return n;
}

/// Printable on a terminal: control bytes of untrusted text become \xNN, long text is cut.
std::string printable(std::string_view text) {
    constexpr std::size_t kLimit = 160;
    constexpr char kHex[] = "0123456789abcdef";
    std::string out;
    for (const char c : text.substr(0, kLimit)) {
        const auto u = static_cast<unsigned char>(c);
        if (c == '\n') {
            out += "\\n";
        } else if (u < 0x20 || u == 0x7f) {
            out += cat("\\x", std::string(1, kHex[u >> 4]), std::string(1, kHex[u & 15]));
        } else {
            out += c;
        }
    }
    if (text.size() > kLimit) out += cat("... (", text.size(), " bytes)");
    return out;
}

std::string value_text(const gguf::Value& value) {
    if (value.type == gguf::ValueType::string) return printable(value.string);
    if (value.type != gguf::ValueType::array) return scalar(value.type, value.bits).dump();
    return cat("[", gguf::value_type_name(value.array.element), " x ", value.array.count, "]");
}

std::string shape_text(const gguf::Tensor& t) {
    std::string out;
    for (std::uint32_t d = 0; d < t.n_dims; ++d) out += cat(d ? " x " : "", t.ne[d]);
    return out;
}

std::string padded(std::string text, std::size_t width) {
    text.resize(std::max(width, text.size()), ' ');
    return text;
}

}  // namespace

Json describe_file(const gguf::File& file, std::size_t max_array) {
    Json metadata = Json::object(), tensors = Json::array(), types = Json::array();
    for (const gguf::Value& v : file.metadata()) metadata[std::string(v.key)] = value_json(v, max_array);
    for (const gguf::Tensor& t : file.tensors()) {
        Json shape = Json::array();
        for (std::uint32_t d = 0; d < t.n_dims; ++d) shape.push_back(t.ne[d]);
        tensors.push_back({{"name", t.name}, {"type", info(t.type).name}, {"shape", std::move(shape)},
                           {"n_bytes", t.data.size()}, {"split", t.split}});
    }
    for (const TypeSum& s : sums_by_type(file)) {
        types.push_back({{"type", s.type}, {"n_tensors", s.n_tensors}, {"n_elements", s.n_elements},
                         {"n_bytes", s.n_bytes}});
    }
    return {{"path", file.path()}, {"gguf_version", file.version()}, {"alignment", file.alignment()},
            {"file_size", file.file_size()}, {"n_params", count_params(file)}, {"types", std::move(types)},
            {"metadata", std::move(metadata)}, {"tensors", std::move(tensors)}};
}

std::string describe_file_text(const gguf::File& file) {
    std::string out = cat(file.path(), ": GGUF v", file.version(), ", ", human_bytes(file.file_size()), ", ",
                          file.tensors().size(), " tensors, ", count_params(file), " values, alignment ",
                          file.alignment(), "\n\nMetadata\n");
    std::size_t width = 0;
    for (const gguf::Value& v : file.metadata()) width = std::max(width, printable(v.key).size());
    for (const gguf::Value& v : file.metadata()) {
        out += cat("  ", padded(printable(v.key), width), "  ", value_text(v), "\n");
    }
    out += "\nTensors (columns first)\n";
    width = 0;
    for (const gguf::Tensor& t : file.tensors()) width = std::max(width, printable(t.name).size());
    for (const gguf::Tensor& t : file.tensors()) {
        out += cat("  ", padded(printable(t.name), width), "  ", padded(info(t.type).name, 5), "  ",
                   padded(shape_text(t), 16), "  ", human_bytes(t.data.size()), "\n");
    }
    out += "\nTypes\n";
    for (const TypeSum& s : sums_by_type(file)) {
        out += cat("  ", padded(s.type, 5), "  ", s.n_tensors, " tensors, ", s.n_elements, " values, ",
                   human_bytes(s.n_bytes), "\n");
    }
    return out;
}

}  // namespace quern::tools
