// SPDX-License-Identifier: Apache-2.0
#include "engine/text/unicode.h"

#include <algorithm>
#include <array>

namespace quern::text {

namespace {

struct Lead {
    std::uint32_t size;                        // 0: not a lead byte
    std::uint8_t low, high;                    // range of the second byte
};

// Table 3-7 of the Unicode standard: well-formed byte sequences.
constexpr Lead lead_of(std::uint8_t b) {
    if (b < 0x80) return {1, 0, 0};
    if (b < 0xC2 || b > 0xF4) return {0, 0, 0};
    if (b < 0xE0) return {2, 0x80, 0xBF};
    if (b == 0xE0) return {3, 0xA0, 0xBF};
    if (b == 0xED) return {3, 0x80, 0x9F};
    if (b < 0xF0) return {3, 0x80, 0xBF};
    if (b == 0xF0) return {4, 0x90, 0xBF};
    if (b == 0xF4) return {4, 0x80, 0x8F};
    return {4, 0x80, 0xBF};
}

/// Bytes of `s` that agree with a well-formed sequence of lead.size bytes.
std::size_t agreeing(std::string_view s, Lead lead) {
    std::size_t n = 1;
    for (; n < lead.size && n < s.size(); ++n) {
        const auto b = static_cast<std::uint8_t>(s[n]);
        const std::uint8_t low = n == 1 ? lead.low : 0x80, high = n == 1 ? lead.high : 0xBF;
        if (b < low || b > high) break;
    }
    return n;
}

constexpr bool is_printable_byte(unsigned b) {
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
}

struct ByteTable {
    std::array<std::uint16_t, 256> to_char{};
    std::array<std::int16_t, 512> to_byte{};
};

constexpr ByteTable make_byte_table() {
    ByteTable t;
    for (auto& b : t.to_byte) b = -1;
    std::uint16_t next = 256;
    for (unsigned b = 0; b < 256; ++b) {
        const std::uint16_t c = is_printable_byte(b) ? static_cast<std::uint16_t>(b) : next++;
        t.to_char[b] = c;
        t.to_byte[c] = static_cast<std::int16_t>(b);
    }
    return t;
}

constexpr ByteTable kByteTable = make_byte_table();

std::string replace_all(std::string_view s, std::string_view from, std::string_view to) {
    std::string out;
    out.reserve(s.size() + 16);
    for (std::size_t at = 0;;) {
        const std::size_t hit = s.find(from, at);
        out.append(s.substr(at, hit - at));
        if (hit == std::string_view::npos) return out;
        out.append(to);
        at = hit + from.size();
    }
}

}  // namespace

CodePoint decode_utf8(std::string_view s) {
    if (s.empty()) return {};
    const auto b0 = static_cast<std::uint8_t>(s[0]);
    const Lead lead = lead_of(b0);
    if (lead.size == 0 || agreeing(s, lead) != lead.size) return {};
    if (lead.size == 1) return {b0, 1};
    std::uint32_t v = b0 & (0x7Fu >> lead.size);
    for (std::uint32_t i = 1; i < lead.size; ++i) v = v << 6 | (static_cast<std::uint8_t>(s[i]) & 0x3Fu);
    return {v, lead.size};
}

void append_utf8(std::string& out, std::uint32_t c) {
    const auto put = [&out](std::uint32_t b) { out.push_back(static_cast<char>(b)); };
    if (c < 0x80) {
        put(c);
    } else if (c < 0x800) {
        put(0xC0 | c >> 6), put(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
        put(0xE0 | c >> 12), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
    } else {
        put(0xF0 | c >> 18), put(0x80 | (c >> 12 & 0x3F)), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
    }
}

std::size_t valid_utf8_prefix(std::string_view s) {
    std::size_t at = 0;
    while (at < s.size()) {
        const CodePoint c = decode_utf8(s.substr(at));
        if (c.size == 0) break;
        at += c.size;
    }
    return at;
}

std::size_t incomplete_utf8_tail(std::string_view s) {
    for (std::size_t n = 1; n <= std::min<std::size_t>(3, s.size()); ++n) {
        const std::string_view tail = s.substr(s.size() - n);
        const Lead lead = lead_of(static_cast<std::uint8_t>(tail[0]));
        if (lead.size > n && agreeing(tail, lead) == n) return n;
        if (lead.size != 0) return 0;
    }
    return 0;
}

std::string escape_spaces(std::string_view s) { return replace_all(s, " ", kSpaceMark); }
std::string unescape_spaces(std::string_view s) { return replace_all(s, kSpaceMark, " "); }

int byte_of_char(std::uint32_t c) { return c < kByteTable.to_byte.size() ? kByteTable.to_byte[c] : -1; }
std::uint32_t char_of_byte(std::uint8_t byte) { return kByteTable.to_char[byte]; }

bool is_white_space(std::uint32_t c) {
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
           c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_cjk(std::uint32_t c) {
    // U+2B820..U+2B91F are left out as in Hugging Face's implementation, whose tokens models were trained on.
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
           (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

}  // namespace quern::text
