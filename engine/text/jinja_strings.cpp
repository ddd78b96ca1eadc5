// SPDX-License-Identifier: Apache-2.0
#include "engine/text/jinja_strings.h"

#include <utf8proc.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <vector>

namespace quern::text::jinja {
namespace {

utf8proc_category_t category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }

char32_t to_upper(char32_t c) { return static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))); }
char32_t to_lower(char32_t c) { return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))); }
char32_t to_title(char32_t c) { return static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c))); }

bool is_cased(char32_t c) { return is_upper(c) || is_lower(c) || category(c) == UTF8PROC_CATEGORY_LT; }

bool printable(char32_t c) {
    if (c == ' ') return true;
    switch (category(c)) {
        case UTF8PROC_CATEGORY_CC:
        case UTF8PROC_CATEGORY_CF:
        case UTF8PROC_CATEGORY_CS:
        case UTF8PROC_CATEGORY_CO:
        case UTF8PROC_CATEGORY_CN:
        case UTF8PROC_CATEGORY_ZL:
        case UTF8PROC_CATEGORY_ZP:
        case UTF8PROC_CATEGORY_ZS:
            return false;
        default:
            return true;
    }
}

void append_hex(std::string& out, char32_t c, int digits) {
    for (int shift = (digits - 1) * 4; shift >= 0; shift -= 4) out += "0123456789abcdef"[(c >> shift) & 15];
}

std::string trim_number(std::string_view s) {
    s = strip(s, true, true, true, "");
    std::string out;
    for (std::size_t i = 0; i < s.size(); ++i) {
        const bool between = i > 0 && i + 1 < s.size() && s[i - 1] != '_' && s[i + 1] != '_';
        if (s[i] == '_' && between) continue;
        out += s[i];
    }
    return out;
}

}  // namespace

std::size_t invalid_utf8(std::string_view s) {
    for (std::size_t i = 0; i < s.size();) {
        const auto byte = [&](std::size_t k) { return static_cast<unsigned char>(s[i + k]); };
        const unsigned char b = byte(0);
        if (b < 0x80) {
            ++i;
            continue;
        }
        const std::size_t n = b >= 0xC2 && b < 0xE0 ? 2 : b >= 0xE0 && b < 0xF0 ? 3 : b >= 0xF0 && b < 0xF5 ? 4 : 0;
        if (n == 0 || i + n > s.size()) return i;
        for (std::size_t k = 1; k < n; ++k)
            if ((byte(k) & 0xC0) != 0x80) return i;
        const bool overlong = (b == 0xE0 && byte(1) < 0xA0) || (b == 0xF0 && byte(1) < 0x90);
        const bool surrogate = b == 0xED && byte(1) >= 0xA0;
        const bool beyond = b == 0xF4 && byte(1) >= 0x90;
        if (overlong || surrogate || beyond) return i;
        i += n;
    }
    return std::string_view::npos;
}

char32_t next_char(std::string_view s, std::size_t& at) {
    const auto byte = [&](std::size_t k) { return static_cast<char32_t>(static_cast<unsigned char>(s[at + k])); };
    const char32_t b = byte(0);
    const std::size_t n = b < 0x80 ? 1 : b < 0xE0 ? 2 : b < 0xF0 ? 3 : 4;
    if (at + n > s.size()) {
        at = s.size();
        return 0xFFFD;
    }
    char32_t c = n == 1 ? b : b & (0x7Fu >> n);
    for (std::size_t k = 1; k < n; ++k) c = (c << 6) | (byte(k) & 0x3F);
    at += n;
    return c;
}

void append_char(std::string& out, char32_t c) {
    const auto put = [&](char32_t b) { out += static_cast<char>(b); };
    if (c < 0x80) {
        put(c);
    } else if (c < 0x800) {
        put(0xC0 | (c >> 6));
        put(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
        put(0xE0 | (c >> 12));
        put(0x80 | ((c >> 6) & 0x3F));
        put(0x80 | (c & 0x3F));
    } else {
        put(0xF0 | (c >> 18));
        put(0x80 | ((c >> 12) & 0x3F));
        put(0x80 | ((c >> 6) & 0x3F));
        put(0x80 | (c & 0x3F));
    }
}

std::size_t char_count(std::string_view s) {
    return static_cast<std::size_t>(
        std::count_if(s.begin(), s.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::size_t byte_offset(std::string_view s, std::size_t chars) {
    std::size_t at = 0;
    while (chars-- > 0 && at < s.size()) next_char(s, at);
    return at;
}

bool is_space(char32_t c) {
    return (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_alpha(char32_t c) {
    const utf8proc_category_t k = category(c);
    return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT ||
           k == UTF8PROC_CATEGORY_LM || k == UTF8PROC_CATEGORY_LO;
}

bool is_digit(char32_t c) { return category(c) == UTF8PROC_CATEGORY_ND; }
bool is_upper(char32_t c) { return category(c) == UTF8PROC_CATEGORY_LU; }
bool is_lower(char32_t c) { return category(c) == UTF8PROC_CATEGORY_LL; }

std::string upper(std::string_view s) {
    std::string out;
    out.reserve(s.size());
    for (std::size_t at = 0; at < s.size();) {
        const char32_t c = next_char(s, at);
        if (c == 0xDF)
            out += "SS";
        else
            append_char(out, to_upper(c));
    }
    return out;
}

std::string lower(std::string_view s) {
    std::string out;
    out.reserve(s.size());
    for (std::size_t at = 0; at < s.size();) append_char(out, to_lower(next_char(s, at)));
    return out;
}

std::string title(std::string_view s) {
    std::string out;
    bool inside = false;
    for (std::size_t at = 0; at < s.size();) {
        const char32_t c = next_char(s, at);
        append_char(out, inside ? to_lower(c) : to_title(c));
        inside = is_cased(c);
    }
    return out;
}

std::string capitalize(std::string_view s) {
    if (s.empty()) return "";
    std::string out;
    std::size_t at = 0;
    append_char(out, to_title(next_char(s, at)));
    return out + lower(s.substr(at));
}

std::string_view strip(std::string_view s, bool left, bool right, bool white, std::string_view chars) {
    const auto gone = [&](char32_t c) {
        if (white) return is_space(c);
        for (std::size_t at = 0; at < chars.size();)
            if (next_char(chars, at) == c) return true;
        return false;
    };
    while (left && !s.empty()) {
        std::size_t at = 0;
        if (!gone(next_char(s, at))) break;
        s.remove_prefix(at);
    }
    while (right && !s.empty()) {
        std::size_t start = s.size() - 1;
        while (start > 0 && (static_cast<unsigned char>(s[start]) & 0xC0) == 0x80) --start;
        std::size_t at = start;
        if (!gone(next_char(s, at))) break;
        s.remove_suffix(s.size() - start);
    }
    return s;
}

std::string replace(std::string_view s, std::string_view from, std::string_view to, std::int64_t count) {
    std::string out;
    std::size_t at = 0;
    if (from.empty()) {  // Python puts `to` before every character and at the end
        while (count != 0) {
            --count;
            out += to;
            if (at >= s.size()) return out;
            const std::size_t start = at;
            next_char(s, at);
            out += s.substr(start, at - start);
        }
        return out.append(s.substr(at));
    }
    while (count != 0) {
        const std::size_t hit = s.find(from, at);
        if (hit == std::string_view::npos) break;
        out.append(s.substr(at, hit - at)).append(to);
        at = hit + from.size();
        --count;
    }
    return out.append(s.substr(at));
}

void repr_string(std::string_view s, std::string& out) {
    const bool has_single = s.find('\'') != std::string_view::npos;
    const char quote = has_single && s.find('"') == std::string_view::npos ? '"' : '\'';
    out += quote;
    for (std::size_t at = 0; at < s.size();) {
        const char32_t c = next_char(s, at);
        if (c == static_cast<char32_t>(quote) || c == '\\') {
            out += '\\';
            out += static_cast<char>(c);
        } else if (c == '\n') {
            out += "\\n";
        } else if (c == '\r') {
            out += "\\r";
        } else if (c == '\t') {
            out += "\\t";
        } else if (printable(c)) {
            append_char(out, c);
        } else {
            out += c < 0x100 ? "\\x" : c < 0x10000 ? "\\u" : "\\U";
            append_hex(out, c, c < 0x100 ? 2 : c < 0x10000 ? 4 : 8);
        }
    }
    out += quote;
}

std::string repr_double(double d) {
    if (std::isnan(d)) return "nan";
    if (std::isinf(d)) return d < 0 ? "-inf" : "inf";
    char buffer[64];
    // Exponent from the scientific form decides the notation: Python writes 1e16 but 1000000000000000.0.
    const auto sci = std::to_chars(buffer, buffer + sizeof buffer, d, std::chars_format::scientific);
    const std::string text(buffer, sci.ptr);
    const int exponent = std::atoi(text.c_str() + text.find('e') + 1);
    if (d != 0 && (exponent < -4 || exponent >= 16)) return text;
    const auto fixed = std::to_chars(buffer, buffer + sizeof buffer, d, std::chars_format::fixed);
    std::string out(buffer, fixed.ptr);
    if (out.find('.') == std::string::npos) out += ".0";
    return out;
}

std::string format_double(double d, char conversion, int precision) {
    if (!std::isfinite(d)) return repr_double(d);
    const bool capital = conversion == 'E' || conversion == 'F' || conversion == 'G';
    const char kind = capital ? static_cast<char>(conversion + 32) : conversion;
    const auto format = kind == 'e'   ? std::chars_format::scientific
                        : kind == 'g' ? std::chars_format::general
                                      : std::chars_format::fixed;
    std::vector<char> buffer(static_cast<std::size_t>(precision) + 400);  // 309 digits before the point at most
    const auto r = std::to_chars(buffer.data(), buffer.data() + buffer.size(), d, format, precision);
    std::string out(buffer.data(), r.ptr);
    return capital ? upper(out) : out;
}

bool parse_integer(std::string_view s, int base, std::int64_t& out) {
    std::string text = trim_number(s);
    std::string_view t = text;
    const bool negative = !t.empty() && t[0] == '-';
    if (!t.empty() && (t[0] == '-' || t[0] == '+')) t.remove_prefix(1);
    if (t.size() > 2 && t[0] == '0') {
        const char p = static_cast<char>(t[1] | 0x20);
        if ((base == 16 && p == 'x') || (base == 8 && p == 'o') || (base == 2 && p == 'b')) t.remove_prefix(2);
    }
    if (t.empty() || t[0] == '-') return false;
    const std::string digits = (negative ? "-" : "") + std::string(t);
    const auto r = std::from_chars(digits.data(), digits.data() + digits.size(), out, base);
    return r.ec == std::errc() && r.ptr == digits.data() + digits.size();
}

bool parse_double(std::string_view s, double& out) {
    std::string text = trim_number(s);
    std::string_view t = text;
    if (!t.empty() && t[0] == '+') t.remove_prefix(1);
    if (t.empty() || t[0] == '+') return false;
    const auto r = std::from_chars(t.data(), t.data() + t.size(), out, std::chars_format::general);
    if (r.ec == std::errc::result_out_of_range) {
        // from_chars leaves the value alone; Python's float() gives infinity or zero.
        const std::size_t e = t.find_first_of("eE");
        const bool tiny = e != std::string_view::npos && e + 1 < t.size() && t[e + 1] == '-';
        out = (t[0] == '-' ? -1.0 : 1.0) * (tiny ? 0.0 : HUGE_VAL);
        return true;
    }
    return r.ec == std::errc() && r.ptr == t.data() + t.size();
}

}  // namespace quern::text::jinja
