// SPDX-License-Identifier: Apache-2.0
// Building error texts from untrusted names.
#pragma once

#include <concepts>
#include <cstddef>
#include <string>
#include <string_view>

namespace quern {

namespace detail {
inline void append(std::string& out, std::string_view s) { out.append(s); }
template <std::integral T>
void append(std::string& out, T v) {
    out += std::to_string(v);
}
}  // namespace detail

/// Concatenates strings and integers.
template <class... Parts>
std::string cat(const Parts&... parts) {
    std::string out;
    (detail::append(out, parts), ...);
    return out;
}

/// `s` in single quotes, control bytes and bytes past ASCII as \xNN, cut after 64 bytes.
inline std::string quoted(std::string_view s) {
    constexpr std::size_t limit = 64;
    constexpr char hex[] = "0123456789abcdef";
    std::string out = "'";
    for (const char c : s.substr(0, limit)) {
        const auto u = static_cast<unsigned char>(c);
        if (u >= 0x20 && u < 0x7f && c != '\'' && c != '\\') {
            out += c;
        } else {
            out += "\\x";
            out += hex[u >> 4];
            out += hex[u & 15];
        }
    }
    out += s.size() > limit ? "...'" : "'";
    return out;
}

}  // namespace quern
