// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <random>

#include "engine/text/tokenizer.h"
#include "engine/text/unicode.h"
#include "tests/text/check_tokenizers.h"
#include "tests/text/tiny_vocab.h"

namespace quern::text {
namespace {

std::shared_ptr<const Tokenizer> byte_level() { return *test::make_tokenizer(test::byte_level_spec("gpt-2")); }

TEST(Stream, GivesWholeCharactersOnly) {
    const auto t = byte_level();
    const std::string text = "aé中🙂 hello あ";
    StreamDecoder d(t);
    std::string all;
    const std::vector<Token> tokens = *t->encode(text);
    for (const Token token : tokens) {
        const std::string_view out = d.push(token);
        EXPECT_EQ(valid_utf8_prefix(out), out.size());
        all += out;
    }
    EXPECT_EQ(all, text);
    EXPECT_EQ(d.flush(), "");
}

TEST(Stream, HoldsTheStartOfACharacterUntilItsEnd) {
    const auto t = byte_level();
    const std::vector<Token> tokens = *t->encode("🙂");
    ASSERT_EQ(tokens.size(), 4u);
    StreamDecoder d(t);
    EXPECT_EQ(d.push(tokens[0]), "");
    EXPECT_EQ(d.push(tokens[1]), "");
    EXPECT_EQ(d.push(tokens[2]), "");
    EXPECT_EQ(d.push(tokens[3]), "🙂");
}

TEST(Stream, FlushGivesTheHeldBytesAsTheyAre) {
    const auto t = byte_level();
    StreamDecoder d(t);
    const std::vector<Token> tokens = *t->encode("🙂");
    EXPECT_EQ(d.push((*t->encode("x"))[0]), "x");
    d.push(tokens[0]), d.push(tokens[1]);
    EXPECT_EQ(d.flush(), "\xF0\x9F");
    EXPECT_EQ(d.flush(), "");
    d.push(tokens[0]);
    d.reset();
    EXPECT_EQ(d.push((*t->encode("y"))[0]), "y");
}

TEST(Stream, EqualsDecodeOnRandomTokens) {
    std::mt19937 rng(3);
    for (const auto& spec : {test::byte_level_spec("gpt-2"), test::spm_spec(), test::bert_spec()}) {
        const auto t = *test::make_tokenizer(spec);
        for (int round = 0; round < 200; ++round) {
            std::vector<Token> tokens(rng() % 50);
            for (Token& token : tokens) token = static_cast<Token>(rng() % t->n_vocab());
            StreamDecoder d(t, true, round % 2 == 0);
            std::string all;
            std::vector<std::size_t> cuts;
            for (const Token token : tokens) {
                all += d.push(token);
                cuts.push_back(all.size());
            }
            all += d.flush();
            for (const std::size_t at : cuts) ASSERT_FALSE(test::cuts_character(all, at));
            ASSERT_EQ(all, t->decode(tokens, round % 2 == 0));
        }
    }
}

TEST(Stream, ContinuesATextWithItsSpace) {
    const test::VocabSpec spec = test::spm_spec();
    const auto t = *test::make_tokenizer(spec);
    StreamDecoder continuing(t), starting(t, true);
    EXPECT_EQ(continuing.push(spec.id("▁hello")), " hello");
    EXPECT_EQ(starting.push(spec.id("▁hello")), "hello");
    EXPECT_EQ(starting.push(spec.id("▁hello")), " hello");
    starting.reset();
    EXPECT_EQ(starting.push(spec.id("▁hello")), "hello");
}

}  // namespace
}  // namespace quern::text
