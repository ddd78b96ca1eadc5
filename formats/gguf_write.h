// SPDX-License-Identifier: Apache-2.0
// Writes GGUF v3: metadata in the order added, tensors in the order added, each padded to the alignment.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "formats/gguf.h"

namespace quern::gguf {

template <class T>
concept Scalar = std::integral<T> || std::floating_point<T>;

/// The metadata type that holds a C++ scalar.
template <Scalar T>
constexpr ValueType value_type_of() {
    if constexpr (std::same_as<T, bool>) return ValueType::boolean;
    if constexpr (std::floating_point<T>) return sizeof(T) == 4 ? ValueType::f32 : ValueType::f64;
    constexpr bool is_signed = std::is_signed_v<T>;
    switch (sizeof(T)) {
        case 1:
            return is_signed ? ValueType::i8 : ValueType::u8;
        case 2:
            return is_signed ? ValueType::i16 : ValueType::u16;
        case 4:
            return is_signed ? ValueType::i32 : ValueType::u32;
        default:
            return is_signed ? ValueType::i64 : ValueType::u64;
    }
}

/// Collects entries, then writes them. A wrong entry (an empty or repeated name, a shape that does not fit the type or
/// the data) is reported by the write, so that building needs no check after each line.
class Writer {
public:
    /// `alignment`: a power of two from 8 to 2 MiB; written as general.alignment unless it is the default.
    explicit Writer(std::uint32_t alignment = 32);

    template <Scalar T>
    void add(std::string_view key, T value) {
        begin(key, value_type_of<T>());
        put(value);
    }
    void add(std::string_view key, std::string_view text);
    void add(std::string_view key, const char* text) { add(key, std::string_view(text)); }
    template <Scalar T>
    void add_array(std::string_view key, std::span<const T> values) {
        begin_array(key, value_type_of<T>(), values.size());
        for (const T v : values) put(v);
    }
    void add_array(std::string_view key, std::span<const std::string_view> texts);
    /// Copies an entry of another file. general.alignment is left out: this writer has its own.
    void add(const Value& value);

    /// `ne`: 1 to 4 dimensions, row length first. `data` is not copied and must live until the write.
    void add_tensor(std::string_view name, DType type, std::span<const std::uint64_t> ne,
                    std::span<const std::byte> data);

    Result<std::vector<std::byte>> to_bytes() const;
    /// Writes beside `path` and renames, so that no reader ever sees half a file; on failure nothing is left behind.
    Status to_file(const std::string& path) const;

private:
    struct Pending {
        std::string name;
        DType type;
        std::vector<std::uint64_t> ne;
        std::span<const std::byte> data;
    };
    void begin(std::string_view key, ValueType type);
    void begin_array(std::string_view key, ValueType element, std::uint64_t count);
    void put_le(std::uint64_t bits, std::size_t size);
    void put_text(std::string_view text);
    template <Scalar T>
    void put(T value);
    Status check() const;
    std::vector<std::byte> head() const;

    std::uint32_t alignment_;
    std::vector<std::string> keys_;
    std::vector<std::byte> values_;  // the encoded metadata section
    std::vector<Pending> tensors_;
};

template <Scalar T>
void Writer::put(T value) {
    if constexpr (std::floating_point<T>) {
        static_assert(sizeof(T) == 4 || sizeof(T) == 8);
        using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
        put_le(std::bit_cast<Bits>(value), sizeof(T));
    } else {
        put_le(static_cast<std::uint64_t>(value), sizeof(T));
    }
}

}  // namespace quern::gguf
