// SPDX-License-Identifier: Apache-2.0
// Builds GGUF bytes with no check at all, for files that the writer refuses to write; and a small file of everything.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "formats/gguf_write.h"

namespace quern::test {

using gguf::ValueType;

struct Raw {
    std::vector<std::byte> bytes;

    Raw& le(std::uint64_t v, std::size_t size) {
        for (std::size_t i = 0; i < size; ++i) bytes.push_back(static_cast<std::byte>(v >> (8 * i)));
        return *this;
    }
    Raw& u32(std::uint64_t v) { return le(v, 4); }
    Raw& u64(std::uint64_t v) { return le(v, 8); }
    Raw& letters(std::string_view s) {
        for (const char c : s) bytes.push_back(static_cast<std::byte>(c));
        return *this;
    }
    Raw& text(std::string_view s) { return u64(s.size()).letters(s); }
    Raw& header(std::uint64_t tensors, std::uint64_t values, std::uint32_t version = 3) {
        return letters("GGUF").u32(version).u64(tensors).u64(values);
    }
    Raw& key(std::string_view name, ValueType type) { return text(name).u32(static_cast<std::uint32_t>(type)); }
    Raw& key_u32(std::string_view name, std::uint32_t v) { return key(name, ValueType::u32).u32(v); }
    Raw& array(std::string_view name, ValueType element, std::uint64_t count) {
        return key(name, ValueType::array).u32(static_cast<std::uint32_t>(element)).u64(count);
    }
    Raw& tensor(std::string_view name, std::initializer_list<std::uint64_t> ne, std::uint32_t type,
                std::uint64_t offset) {
        text(name).u32(ne.size());
        for (const std::uint64_t d : ne) u64(d);
        return u32(type).u64(offset);
    }
    /// Zeros up to the alignment, then `n` bytes of data.
    Raw& data(std::size_t n, std::size_t alignment = 32) {
        bytes.resize((bytes.size() + alignment - 1) / alignment * alignment + n);
        return *this;
    }
};

/// A valid file with every metadata type, arrays of each, and tensors of four types; about 1.5 KB.
inline std::vector<std::byte> small_file() {
    static const std::vector<std::byte> data(256, std::byte{0x3c});
    gguf::Writer w;
    const auto add_both = [&](const std::string& name, auto value) {
        const decltype(value) three[] = {value, value, value};
        w.add(name, value);
        w.add_array(name + "s", std::span<const decltype(value)>(three));
    };
    add_both("u8", std::uint8_t{200});
    add_both("i8", std::int8_t{-100});
    add_both("u16", std::uint16_t{60000});
    add_both("i16", std::int16_t{-30000});
    add_both("u32", std::uint32_t{4000000000u});
    add_both("i32", std::int32_t{-2000000000});
    add_both("u64", std::uint64_t{18000000000000000000u});
    add_both("i64", std::int64_t{-9000000000000000000});
    add_both("f32", 0.15625f);
    add_both("f64", 2.5e100);
    add_both("bool", true);
    w.add("string", "text");
    const std::string_view words[] = {"a", "", "two words"};
    w.add_array("strings", std::span(words));
    w.add_array("empty", std::span<const std::string_view>());
    const auto tensor = [&](const char* name, DType type, std::initializer_list<std::uint64_t> ne) {
        std::uint64_t n = 1;
        for (const std::uint64_t d : ne) n *= d;
        w.add_tensor(name, type, {ne.begin(), ne.size()}, std::span(data).first(*row_bytes(type, n)));
    };
    tensor("one", DType::F32, {3});
    tensor("two", DType::F16, {4, 3});
    tensor("three", DType::Q4_0, {32, 2, 1});
    tensor("four", DType::Q2_K, {256, 1, 1, 2});
    auto bytes = w.to_bytes();
    return bytes ? std::move(*bytes) : std::vector<std::byte>();
}

}  // namespace quern::test
