// SPDX-License-Identifier: Apache-2.0
// A bounds-checked little-endian cursor. A read that would pass the end fails and moves nothing, so that offset()
// still says where the trouble is.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace quern {

/// Unaligned little-endian load of `size` bytes (at most 8), zero-extended.
inline std::uint64_t load_le(const std::byte* p, std::size_t size) {
    std::uint64_t v = 0;
    for (std::size_t i = 0; i < size; ++i) v |= std::to_integer<std::uint64_t>(p[i]) << (8 * i);
    return v;
}

class ByteCursor {
public:
    explicit ByteCursor(std::span<const std::byte> bytes) : bytes_(bytes) {}

    std::uint64_t offset() const { return pos_; }
    std::uint64_t remaining() const { return bytes_.size() - pos_; }

    template <std::unsigned_integral T>
    bool read(T& out) {
        if (remaining() < sizeof(T)) return false;
        out = static_cast<T>(load_le(bytes_.data() + pos_, sizeof(T)));
        pos_ += sizeof(T);
        return true;
    }
    /// n comes from the file: it is compared with what is left, never added to the position first.
    bool read_bytes(std::uint64_t n, std::span<const std::byte>& out) {
        if (n > remaining()) return false;
        out = bytes_.subspan(pos_, static_cast<std::size_t>(n));
        pos_ += static_cast<std::size_t>(n);
        return true;
    }

private:
    std::span<const std::byte> bytes_;
    std::size_t pos_ = 0;
};

inline std::string_view as_text(std::span<const std::byte> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace quern
