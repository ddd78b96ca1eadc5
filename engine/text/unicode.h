// SPDX-License-Identifier: Apache-2.0
// UTF-8 and the few character properties that tokenizers need.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace quern::text {

/// U+2581, which sentencepiece vocabularies write for a space.
inline constexpr std::string_view kSpaceMark = "\xE2\x96\x81";

struct CodePoint {
    std::uint32_t value = 0;
    std::uint32_t size = 0;                    // bytes, 0 where no valid character starts
};

/// The character at the start of `s`, strictly: no overlong forms, surrogates or values above U+10FFFF.
CodePoint decode_utf8(std::string_view s);
void append_utf8(std::string& out, std::uint32_t code_point);
/// Length of the longest prefix of `s` that is valid UTF-8.
std::size_t valid_utf8_prefix(std::string_view s);
/// Bytes at the end of `s` that start a character whose rest is missing: 0 to 3. Bytes that can no longer become a
/// character do not count.
std::size_t incomplete_utf8_tail(std::string_view s);

/// Replaces every space by kSpaceMark, or the other way round.
std::string escape_spaces(std::string_view s);
std::string unescape_spaces(std::string_view s);

/// The byte that GPT-2's byte-to-character table writes as this code point, -1 if it is not in the table.
int byte_of_char(std::uint32_t code_point);
/// The code point that stands for a byte in that table: the byte itself where printable, else from U+0100 on.
std::uint32_t char_of_byte(std::uint8_t byte);

/// Unicode's White_Space property.
bool is_white_space(std::uint32_t code_point);
/// CJK ideographs, as BERT's tokenizer counts them.
bool is_cjk(std::uint32_t code_point);

}  // namespace quern::text
