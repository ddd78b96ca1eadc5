// SPDX-License-Identifier: Apache-2.0
// Python's str on UTF-8 bytes: offsets are characters (code points) wherever a template sees them.
#ifndef QUERN_ENGINE_TEXT_JINJA_STRINGS_H
#define QUERN_ENGINE_TEXT_JINJA_STRINGS_H

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace quern::text::jinja {

/// Offset of the first byte that is not UTF-8 (surrogates and overlong forms included), or npos.
std::size_t invalid_utf8(std::string_view s);
/// Decodes the character at `at` and moves past it. `s` must be valid UTF-8.
char32_t next_char(std::string_view s, std::size_t& at);
void append_char(std::string& out, char32_t c);
std::size_t char_count(std::string_view s);
/// Byte offset of a character, or s.size() when past the end.
std::size_t byte_offset(std::string_view s, std::size_t chars);

bool is_space(char32_t c);
bool is_alpha(char32_t c);
bool is_digit(char32_t c);
bool is_upper(char32_t c);
bool is_lower(char32_t c);
/// One character to one character, but for U+00DF, which Python makes "SS".
std::string upper(std::string_view s);
std::string lower(std::string_view s);
/// str.title(): a letter after a non-letter becomes upper case, every other one lower case.
std::string title(std::string_view s);
std::string capitalize(std::string_view s);
/// Takes away characters in `chars` (white space when empty and `white`) from the left and right end.
std::string_view strip(std::string_view s, bool left, bool right, bool white, std::string_view chars);
std::string replace(std::string_view s, std::string_view from, std::string_view to, std::int64_t count);

/// repr(): quoted and escaped as Python does.
void repr_string(std::string_view s, std::string& out);
/// repr() of a float: shortest digits that read back the same, Python's choice of notation.
std::string repr_double(double d);
/// Fixed or exponent notation with `precision` digits; conversion is one of "eEfFgG".
std::string format_double(double d, char conversion, int precision);
/// Whole string as a number, as int() and float() read it; false if it is none.
bool parse_integer(std::string_view s, int base, std::int64_t& out);
bool parse_double(std::string_view s, double& out);

}  // namespace quern::text::jinja
#endif
