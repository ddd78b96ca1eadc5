// SPDX-License-Identifier: Apache-2.0
#include "engine/text/pretokenize.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

#include "engine/text/unicode.h"

namespace quern::text {
namespace {

using Words = std::vector<std::string>;

Words split(std::string_view pre, std::string_view text) {
    const PreTokenizerSpec* spec = find_pre_tokenizer(pre);
    if (!spec) return {"no such pre-tokenizer"};
    auto p = PreTokenizer::create(*spec);
    if (!p) return {p.error().message};
    auto ranges = p->split(text);
    if (!ranges) return {ranges.error().message};
    Words out;
    for (const Range r : *ranges) out.emplace_back(text.substr(r.begin, r.end - r.begin));
    return out;
}

struct Case {
    const char* pre;
    const char* text;
    Words words;
};

// The words that Hugging Face's tokenizers 0.23 makes with the expressions of each model family's tokenizer.json.
const Case kCases[] = {
    {"gpt-2", "I'll take 123 of\n\n  them!! ", {"I", "'ll", " take", " 123", " of", "\n\n ", " them", "!!", " "}},
    {"gpt-2", "I'LL", {"I", "'", "LL"}},
    {"smollm", "in 2024 x²", {"in", " ", "2", "0", "2", "4", " x", "²"}},
    {"starcoder", "a12", {"a", "1", "2"}},
    {"refact", "a12", {"a", "1", "2"}},
    {"command-r", "a12", {"a", "1", "2"}},
    {"mpt", "a12", {"a", "12"}},
    {"phi-2", "a12", {"a", "12"}},
    {"llama-bpe", "I'LL pay $12345\r\n (now)", {"I", "'LL", " pay", " $", "123", "45", "\r\n", " (", "now", ")"}},
    {"llama3", "12345", {"123", "45"}},
    {"llama-v3", "12345", {"123", "45"}},
    {"qwen2", "I'LL 12\n\n x", {"I", "'LL", " ", "1", "2", "\n\n", " x"}},
    {"deepseek-r1-qwen", "12", {"1", "2"}},
    {"qwen35", "e\xCC\x81t", {"e\xCC\x81t"}},
    {"qwen2", "e\xCC\x81t", {"e", "\xCC\x81t"}},
    {"falcon", "a+b =1234", {"a", "+", "b", " ", "=", "123", "4"}},
    {"default", "a+b 1234", {"a", "+", "b", " ", "123", "4"}},
    {"deepseek-llm", "Hi 中文 12!\n  ", {"Hi", " ", "中文", " ", "12", "!", "\n", "  "}},
    {"deepseek-coder", "x=10 中文\n", {"x", "=", "1", "0", " ", "中文", "\n"}},
    {"deepseek-v3", "(abc) 12345 中文あ", {"(abc", ")", " ", "123", "45", " ", "中文あ"}},
    {"tekken", "HelloWORLD foo/bar 12", {"Hello", "WORLD", " foo", "/bar", " ", "1", "2"}},
    {"gpt-4o", "Hello's WORLDwide 1234", {"Hello's", " WORLDwide", " ", "123", "4"}},
    {"bloom", "one two,three", {"one", " two", ",", "three"}},
    {"viking", "a1,b", {"a", "1", ",", "b"}},
    {"bailingmoe", "it'S 12\n\nx", {"it", "'S", " ", "1", "2", "\n\n", "x"}},
    {"seed-coder", "x!!\ny", {"x", "!!", "\n", "y"}},
};

TEST(PreTokenize, CutsAsEachModelFamilyDoes) {
    for (const Case& c : kCases) EXPECT_EQ(split(c.pre, c.text), c.words) << c.pre << ": " << c.text;
}

TEST(PreTokenize, MongolianVowelSeparatorIsNoSpace) {
    // PCRE2's own \s has U+180E, Unicode's White_Space has not since version 6.3.
    EXPECT_EQ(split("gpt-2", "\xE1\xA0\x8E\xE1\xA0\x8E."), (Words{"\xE1\xA0\x8E\xE1\xA0\x8E."}));
    EXPECT_EQ(split("gpt-2", "\xE3\x80\x80\xE3\x80\x80."), (Words{"\xE3\x80\x80", "\xE3\x80\x80", "."}));
}

TEST(PreTokenize, EveryByteOutsideUtf8IsItsOwnWord) {
    EXPECT_EQ(split("gpt-2", "ab\xFF\xFE"
                             "c\xE6\x97"),
              (Words{"ab", "\xFF", "\xFE", "c", "\xE6", "\x97"}));
    EXPECT_EQ(split("smollm", ""), Words{});
}

TEST(PreTokenize, NamesAreUniqueAndUnknownOnesAreNotFound) {
    std::set<std::string> seen;
    const std::string known = known_pre_tokenizers() + ", ";
    for (std::size_t at = 0; at < known.size();) {
        const std::size_t end = known.find(", ", at);
        const std::string name = known.substr(at, end - at);
        EXPECT_TRUE(seen.insert(name).second) << name;
        EXPECT_NE(find_pre_tokenizer(name), nullptr) << name;
        at = end + 2;
    }
    for (const auto* name : {"default", "gpt-2", "smollm", "qwen2", "llama-bpe", "starcoder", "refact", "falcon", "mpt",
                             "deepseek-llm", "deepseek-coder", "command-r", "phi-2"}) {
        EXPECT_TRUE(seen.count(name)) << name;
    }
    EXPECT_EQ(find_pre_tokenizer("llama-bpe2"), nullptr);
    EXPECT_EQ(find_pre_tokenizer(""), nullptr);
}

TEST(PreTokenize, WordsCoverTheTextInOrder) {
    std::mt19937 rng(7);
    std::string text;
    for (int i = 0; i < 3000; ++i) {
        const auto below = [&rng](unsigned n) { return static_cast<std::uint32_t>(rng() % n); };
        const std::uint32_t kinds[] = {below(128), below(0x600), 0x4E00 + below(64), 0x1F300 + below(64), ' ', '\n'};
        append_utf8(text, kinds[below(6)]);
        if (rng() % 50 == 0) text.push_back(static_cast<char>(0x80 + rng() % 128));
    }
    const std::string known = known_pre_tokenizers() + ", ";
    for (std::size_t at = 0; at < known.size();) {
        const std::size_t end = known.find(", ", at);
        const Words words = split(known.substr(at, end - at), text);
        std::string joined;
        for (const auto& w : words) {
            EXPECT_FALSE(w.empty());
            joined += w;
        }
        EXPECT_EQ(joined, text) << known.substr(at, end - at);
        at = end + 2;
    }
}

TEST(PreTokenize, LongRunsOfOneCharacterEnd) {
    // 256 KiB each: an expression that tries every start of a run, or hits a limit of PCRE2, does not get through.
    for (const auto* pre :
         {"default", "gpt-2", "smollm", "llama-bpe", "qwen2", "deepseek-llm", "deepseek-coder", "deepseek-v3", "falcon",
          "tekken", "gpt-4o", "bloom", "viking", "bailingmoe", "seed-coder"}) {
        for (const std::string unit : {" ", "\n", "a", "A", "7", "!", "\t\n", "中", "🙂", "\xCC\x81"}) {
            std::string text;
            while (text.size() < (1u << 18)) text += unit;
            text += "x";
            const PreTokenizerSpec* spec = find_pre_tokenizer(pre);
            auto p = PreTokenizer::create(*spec);
            ASSERT_TRUE(p.ok()) << p.error().message;
            auto words = p->split(text);
            ASSERT_TRUE(words.ok()) << pre << ": " << words.error().message;
            EXPECT_EQ(words->back().end, text.size());
        }
    }
}

}  // namespace
}  // namespace quern::text
