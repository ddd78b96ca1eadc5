// SPDX-License-Identifier: Apache-2.0
#include "engine/sample/stop_strings.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace quern::engine {
namespace {

StopMatcher make(const std::vector<std::string>& stops) {
    auto m = StopMatcher::create(stops);
    EXPECT_TRUE(m) << m.error().message;
    return *std::move(m);
}

struct Outcome {
    std::string text;
    std::string stop;
    bool operator==(const Outcome&) const = default;
};

/// The rule, said plainly: the first end of a match in the text, and there the longest stop string (the first listed).
Outcome expected(const std::vector<std::string>& stops, const std::string& text) {
    for (std::size_t end = 1; end <= text.size(); ++end) {
        const std::string* best = nullptr;
        for (const std::string& s : stops) {
            if (!std::string_view(text).substr(0, end).ends_with(s)) continue;
            if (best == nullptr || s.size() > best->size()) best = &s;
        }
        if (best != nullptr) return {text.substr(0, end - best->size()), *best};
    }
    return {text, ""};
}

bool whole_characters(std::string_view s) {  // enough for text that is valid UTF-8 as a whole
    if (s.empty()) return true;
    if ((static_cast<unsigned char>(s.front()) & 0xc0) == 0x80) return false;
    std::size_t lead = s.size() - 1;
    while ((static_cast<unsigned char>(s[lead]) & 0xc0) == 0x80) --lead;
    const auto b = static_cast<unsigned char>(s[lead]);
    return s.size() - lead == (b >= 0xf0 ? 4u : b >= 0xe0 ? 3u : b >= 0xc0 ? 2u : 1u);
}

/// Feeds `text` in pieces; bit i of `cuts` cuts after byte i.
Outcome feed(StopMatcher& m, const std::string& text, std::uint64_t cuts, bool check_utf8) {
    m.reset();
    Outcome out;
    std::size_t from = 0;
    const auto take = [&](std::string_view s) {
        EXPECT_TRUE(!check_utf8 || whole_characters(s)) << text << " " << cuts;
        out.text += s;
    };
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (i + 1 < text.size() && (cuts >> i & 1) == 0) continue;
        take(m.push(std::string_view(text).substr(from, i + 1 - from)));
        from = i + 1;
    }
    take(m.flush());
    if (m.matched() >= 0) out.stop = m.stop(m.matched());
    return out;
}

TEST(StopStrings, EverySplitGivesTheSameResult) {
    const std::vector<std::vector<std::string>> stop_sets{
        {},           {"ab"},          {"aab", "ab"}, {"abcd", "bc"}, {"aaa"}, {"aba", "bab", "b\nb"}, {"é", "\n\n"},
        {"€b", "a€"}, {"abab", "ba€"},
    };
    const std::vector<std::string> texts{
        "",          "a",         "ab",    "aab",   "aaab",  "abcabcd", "aabaabaab",
        "abaababab", "b\n\nb\nb", "aéa€b", "xa€ba", "😀a€é", "ababba€",
    };
    for (const auto& stops : stop_sets) {
        StopMatcher m = make(stops);
        for (const std::string& text : texts) {
            const Outcome want = expected(stops, text);
            const std::uint64_t n_cuts = text.empty() ? 1 : std::uint64_t{1} << (text.size() - 1);
            for (std::uint64_t cuts = 0; cuts < n_cuts; ++cuts) {
                const Outcome got = feed(m, text, cuts, true);
                ASSERT_EQ(got.text, want.text) << "text '" << text << "', cuts " << cuts;
                ASSERT_EQ(got.stop, want.stop) << "text '" << text << "', cuts " << cuts;
            }
        }
    }
}

TEST(StopStrings, RandomTextsOverASmallAlphabet) {
    std::uint64_t state = 1;
    const auto random = [&](std::uint64_t n) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return (state >> 33) % n;
    };
    const auto word = [&](std::uint64_t length) {
        std::string s;
        while (s.size() < length) s += "ab\xc3"[random(3)];  // with bytes that are not UTF-8
        return s;
    };
    int matches = 0;
    for (int round = 0; round < 3000; ++round) {
        std::vector<std::string> stops;
        for (std::uint64_t n = random(4); n > 0; --n) stops.push_back(word(1 + random(6)));
        StopMatcher m = make(stops);
        const std::string text = word(random(40));
        const Outcome want = expected(stops, text);
        matches += !want.stop.empty();
        for (int i = 0; i < 4; ++i) ASSERT_EQ(feed(m, text, random(std::uint64_t{1} << 31) << random(32), false), want);
    }
    EXPECT_GT(matches, 1000);
}

TEST(StopStrings, HoldsBackOnlyWhatMayBeginAStop) {
    StopMatcher m = make({"<|end|>", "User:"});
    EXPECT_EQ(m.push("Hello <"), "Hello ");
    EXPECT_EQ(m.push("b> <|e"), "<b> ");
    EXPECT_EQ(m.push("nd "), "<|end ");
    EXPECT_EQ(m.push("U"), "");
    EXPECT_EQ(m.push("ser"), "");
    EXPECT_EQ(m.push("s"), "Users");
    EXPECT_EQ(m.push("Use"), "");
    EXPECT_EQ(m.flush(), "Use");
    EXPECT_EQ(m.flush(), "");
    EXPECT_EQ(m.push("r: x"), "r: x") << "a stop string does not reach over a flush";
    EXPECT_EQ(m.matched(), -1);
    EXPECT_EQ(m.push("bye <|end|> more"), "bye ");
    ASSERT_EQ(m.matched(), 0);
    EXPECT_EQ(m.stop(0), "<|end|>");
    EXPECT_EQ(m.push("again"), "");
    EXPECT_EQ(m.flush(), "");
    m.reset();
    EXPECT_EQ(m.push("again"), "again");
}

TEST(StopStrings, SplitCharactersWait) {
    StopMatcher m = make({});
    EXPECT_EQ(m.push("a\xf0\x9f"), "a");
    EXPECT_EQ(m.push("\x98"), "");
    EXPECT_EQ(m.push("\x80z"), "\xf0\x9f\x98\x80z");
    EXPECT_EQ(m.push("\x80\x80\x80\x80"), "\x80\x80\x80\x80") << "bytes that can never become a character pass";
    EXPECT_EQ(m.push("\xff\xc3"), "\xff");
    EXPECT_EQ(m.flush(), "\xc3");
}

TEST(StopStrings, EmptyStopIsAnError) {
    const auto m = StopMatcher::create({"a", ""});
    ASSERT_FALSE(m);
    EXPECT_EQ(m.error().message, "stop string 1 is empty; every text would end at once");
}

TEST(StopStrings, LongRepetitionsStayLinear) {
    // A megabyte of one letter against a stop string that it almost matches; quadratic work would not end in this life.
    StopMatcher m = make({std::string(50000, 'a') + "b", std::string(40000, 'a') + "c"});
    const std::string piece(1000, 'a');
    std::size_t given = 0;
    for (int i = 0; i < 1000; ++i) given += m.push(piece).size();
    EXPECT_EQ(given, 950000u);
    EXPECT_EQ(m.push("b"), std::string());
    EXPECT_EQ(m.matched(), 0);
}

}  // namespace
}  // namespace quern::engine
