// SPDX-License-Identifier: Apache-2.0
#include "engine/text/unicode.h"

#include <gtest/gtest.h>

#include <set>

namespace quern::text {
namespace {

TEST(Unicode, EveryCodePointRoundTrips) {
    for (std::uint32_t c = 0; c < 0x110000; ++c) {
        std::string s;
        append_utf8(s, c);
        const CodePoint d = decode_utf8(s);
        if (c >= 0xD800 && c < 0xE000) {
            ASSERT_EQ(d.size, 0u) << "surrogate " << c;
            continue;
        }
        ASSERT_EQ(d.value, c);
        ASSERT_EQ(d.size, s.size());
        ASSERT_EQ(valid_utf8_prefix(s + s), 2 * s.size());
        // Every proper prefix is a character that may still come; the whole is not.
        for (std::size_t n = 1; n < s.size(); ++n) ASSERT_EQ(incomplete_utf8_tail(s.substr(0, n)), n) << c;
        ASSERT_EQ(incomplete_utf8_tail(s), 0u) << c;
    }
}

TEST(Unicode, IllFormedBytesAreNoCharacters) {
    for (const std::string s : {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xE0\x9F\xBF", "\xED\xA0\x80",
                                "\xF0\x80\x80\x80", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF",
                                "\xE6\x97", "\xE6", "\xF0\x9F\x99", "\xC3("}) {
        EXPECT_EQ(decode_utf8(s).size, 0u) << testing::PrintToString(s);
        EXPECT_EQ(valid_utf8_prefix("ab" + s), 2u) << testing::PrintToString(s);
    }
}

TEST(Unicode, TailThatCannotBecomeACharacterIsNotHeld) {
    EXPECT_EQ(incomplete_utf8_tail(""), 0u);
    EXPECT_EQ(incomplete_utf8_tail("abc"), 0u);
    EXPECT_EQ(incomplete_utf8_tail("a\xE6\x97"), 2u);
    EXPECT_EQ(incomplete_utf8_tail("a\xE0\x80"), 0u);          // overlong already
    EXPECT_EQ(incomplete_utf8_tail("a\xED\xA0"), 0u);          // surrogate already
    EXPECT_EQ(incomplete_utf8_tail("a\x97"), 0u);
    EXPECT_EQ(incomplete_utf8_tail("\xE6\x97\xA5\x80\x80\x80"), 0u);
    EXPECT_EQ(incomplete_utf8_tail("\xFF\xC3"), 1u);
}

TEST(Unicode, ByteTableIsABijectionOntoPrintableCharacters) {
    std::set<std::uint32_t> seen;
    for (int b = 0; b < 256; ++b) {
        const std::uint32_t c = char_of_byte(static_cast<std::uint8_t>(b));
        EXPECT_EQ(byte_of_char(c), b);
        EXPECT_TRUE(seen.insert(c).second);
        EXPECT_FALSE(is_white_space(c) || c < 0x21 || (c >= 0x7F && c <= 0xA0)) << b;
    }
    EXPECT_EQ(char_of_byte(' '), 0x120u);      // the well-known G with dot
    EXPECT_EQ(char_of_byte('\n'), 0x10Au);
    EXPECT_EQ(byte_of_char(0x144), -1);
    EXPECT_EQ(byte_of_char(0x4E2D), -1);
}

TEST(Unicode, SpacesEscapeBothWays) {
    EXPECT_EQ(escape_spaces(" a  b "), "▁a▁▁b▁");
    EXPECT_EQ(unescape_spaces("▁a▁▁b▁"), " a  b ");
    EXPECT_EQ(escape_spaces(""), "");
}

}  // namespace
}  // namespace quern::text
