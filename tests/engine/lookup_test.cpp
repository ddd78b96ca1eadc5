// SPDX-License-Identifier: Apache-2.0
// Prompt lookup: no token changes, whatever the sampler; and the choice of widths pays, in simulated time.
#include "engine/run/lookup.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "quern/quern.hpp"
#include "tests/support/models.h"

namespace quern {
namespace {

using engine::Lookup;

std::vector<Token> repeated(std::vector<Token> block, int times) {
    std::vector<Token> out;
    for (int i = 0; i < times; ++i) out.insert(out.end(), block.begin(), block.end());
    return out;
}

std::vector<Token> guess(Lookup& l, const std::vector<Token>& text, std::uint32_t room) {
    const auto g = l.guess(text, room);
    return {g.begin(), g.end()};
}

TEST(Guess, WhatFollowedTheLongestLikeness) {
    Lookup l(8);
    EXPECT_TRUE(guess(l, {1, 2, 3, 1, 2}, 8).empty()) << "nothing is measured yet";
    l.ran(1);
    using V = std::vector<Token>;
    EXPECT_TRUE(guess(l, {}, 8).empty());
    EXPECT_TRUE(guess(l, {1, 2, 3, 4}, 8).empty());
    EXPECT_TRUE(guess(l, {1, 2, 3, 2}, 8).empty()) << "one token alike is chance";
    EXPECT_TRUE(guess(l, {1, 2, 3, 1, 2}, 0).empty());
    EXPECT_EQ(guess(l, {9, 1, 2, 3, 4, 5, 9, 1, 2}, 2), (V{3, 4}));
    EXPECT_EQ(guess(l, {5, 1, 2, 7, 6, 1, 2, 8, 0, 5, 1, 2}, 1), (V{7})) << "the longer likeness";
    EXPECT_EQ(guess(l, {1, 2, 7, 6, 1, 2, 8, 0, 1, 2}, 1), (V{8})) << "the newer of equals";
    const V cycle = guess(l, {4, 5, 6, 4, 5, 6, 4, 5, 6}, 8);
    ASSERT_GE(cycle.size(), 4u);
    for (std::size_t i = 0; i < cycle.size(); ++i) EXPECT_EQ(cycle[i], static_cast<Token>(4 + i % 3)) << "past its own end";
}

/// Time for `text` behind `prompt` when each guess is right if it is what comes, relative to plain steps; each guess makes a
/// step longer by `slope`.
double simulate(const std::vector<Token>& prompt, const std::vector<Token>& text, double slope = 0.08) {
    const auto cost = [&](std::size_t n) { return 1 + slope * static_cast<double>(n); };
    Lookup l(Lookup::kMost);
    std::vector<Token> all = prompt;
    double time = 0;
    for (std::size_t at = 0; at < text.size();) {
        all.push_back(text[at++]);
        const std::vector<Token> g = guess(l, all, static_cast<std::uint32_t>(text.size() - at));
        time += cost(g.size());
        l.ran(cost(g.size()));
        std::uint32_t n = 0;
        while (n < g.size() && g[n] == text[at]) ++n, all.push_back(text[at++]);
        l.accepted(n);
    }
    return time / static_cast<double>(text.size());
}

TEST(Width, CopyingIsSeveralTimesFaster) {
    std::mt19937 rng(1);
    std::vector<Token> text(600);
    for (Token& t : text) t = static_cast<Token>(rng() % 200);
    std::vector<Token> edited = text;
    for (std::size_t i = 20; i < edited.size(); i += 40) edited[i] = 777;
    // 16 tokens for 2.2 steps at best: 0.14.
    EXPECT_LT(simulate(text, text), 0.2);
    EXPECT_LT(simulate(text, edited), 0.35);
}

TEST(Guess, AnEditOnceMadeIsGuessedAgain) {
    // 5 stands at 9 and 19 of the text that is copied; the copy has 6 at its first place.
    std::vector<Token> text;
    for (Token t = 0; t < 30; ++t) text.push_back(t % 10 == 9 && t < 20 ? 5 : 100 + t);
    const std::vector<Token> source = text;
    Lookup l(8);
    l.ran(1);
    text.insert(text.end(), source.begin(), source.begin() + 9);
    EXPECT_EQ(guess(l, text, 1), (std::vector<Token>{5}));
    l.accepted(0);
    text.push_back(6);
    EXPECT_EQ(guess(l, text, 1), (std::vector<Token>{source[10]})) << "it goes on behind the edit";
    l.accepted(1);
    text.insert(text.end(), source.begin() + 10, source.begin() + 19);
    EXPECT_EQ(guess(l, text, 1), (std::vector<Token>{6}));
    l.accepted(0);
    text.push_back(5);   // not this time
    EXPECT_EQ(guess(l, text, 1), (std::vector<Token>{source[20]}));
    l.accepted(1);
    text.insert(text.end(), source.begin() + 20, source.end());
    text.insert(text.end(), source.begin(), source.begin() + 9);
    const std::vector<Token> next = guess(l, text, 1);
    ASSERT_EQ(next.size(), 1u);
    EXPECT_EQ(next[0], 6) << "what the newest copy has there";
}

TEST(Width, ANewNameIsFollowed) {
    std::mt19937 rng(1);
    std::vector<Token> text(600);
    for (Token& t : text) t = static_cast<Token>(rng() % 200);
    for (std::size_t i = 10; i < text.size(); i += 12) text[i] = 777;
    std::vector<Token> edited = text;
    std::replace(edited.begin(), edited.end(), 777, 888);
    EXPECT_LT(simulate(text, edited), 0.155) << "16 tokens for 2.2 steps, as if nothing had been edited";
}

TEST(Width, TextThatOnlySeemsAlikeCostsLittle) {
    // Pairs recur all the time, and what follows is another token each time.
    std::mt19937 rng(2);
    std::vector<Token> prompt(2000), text(600);
    for (auto* v : {&prompt, &text})
        for (Token& t : *v) t = static_cast<Token>(rng() % 40);
    for (const double slope : {0.1, 0.3, 1.0}) {
        const double time = simulate(prompt, text, slope);
        EXPECT_GT(time, 1) << "or the simulation has nothing to lose";
        EXPECT_LT(time, 1.025) << slope;
    }
}

TEST(Width, ComesBackWhenItPaysAgain) {
    std::mt19937 rng(3);
    std::vector<Token> prompt(1000), text(1000), last(400);
    for (Token& t : prompt) t = static_cast<Token>(rng() % 12);
    for (Token& t : text) t = static_cast<Token>(rng() % 12);
    for (Token& t : last) t = static_cast<Token>(1000 + rng() % 200);
    prompt.insert(prompt.end(), last.begin(), last.end());
    const double alone = simulate(prompt, text);
    text.insert(text.end(), last.begin(), last.end());
    EXPECT_LT(simulate(prompt, text) * 1400 - alone * 1000, 0.4 * 400);
}

struct Case {
    std::string name;
    SamplerOptions sampler;
};
std::vector<Case> cases() {
    std::vector<Case> out{{"greedy", {.temperature = 0}}, {"greedy with penalties", {.temperature = 0, .repeat_penalty = 1.05f}}};
    for (std::uint64_t seed = 1; seed <= 4; ++seed) out.push_back({"seed " + std::to_string(seed), {.temperature = 0.3f, .repeat_penalty = seed == 2 ? 1.1f : 1.0f, .seed = seed}});
    return out;
}

/// Text with and without lookup; gives how many guesses were right in all.
std::uint32_t expect_same_text(const Model& m, const std::vector<Token>& prompt, std::int64_t n, std::uint32_t n_ctx) {
    std::uint32_t accepted = 0;
    for (const Case& c : cases()) {
        GenerateOptions o{.sampler = c.sampler, .max_tokens = n, .ignore_end_of_generation = true};
        auto a = m.new_session(n_ctx), b = m.new_session(n_ctx);
        const auto want = a->generate(prompt, o);
        o.lookup = true;
        const auto got = b->generate(prompt, o);
        EXPECT_TRUE(want.ok() && got.ok());
        EXPECT_EQ(got->tokens, want->tokens) << c.name;
        EXPECT_EQ(got->text, want->text) << c.name;
        EXPECT_EQ(got->stop_reason, want->stop_reason) << c.name;
        EXPECT_LE(got->n_accepted, got->n_guessed);
        EXPECT_EQ(want->n_guessed, 0u);
        accepted += got->n_accepted;
        // Both go on from where they are: guesses that were left over have changed nothing.
        EXPECT_TRUE(std::ranges::equal(a->tokens(), b->tokens()));
        const Token t = 7;
        if (a->tokens().size() < n_ctx) {
            EXPECT_TRUE(a->decode({&t, 1}).ok() && b->decode({&t, 1}).ok());
            EXPECT_TRUE(std::ranges::equal(a->logits(), b->logits())) << c.name;
        }
    }
    return accepted;
}

TEST(SameText, TinyModels) {
    for (const char* name : {"llama-q4_0.gguf", "qwen2-q4_0.gguf"}) {
        auto m = Model::load((test::tiny_dir() / name).string(), {});
        ASSERT_TRUE(m.ok());
        const auto prompt = repeated({5, 6, 7, 8, 9, 100, 3}, 5);
        std::uint32_t accepted = expect_same_text(*m, prompt, 120, 400);
        accepted += expect_same_text(*m, prompt, -1, 100);  // up to the last place of the context
        EXPECT_GT(accepted, 0u) << name;
    }
}

TEST(SameText, Smollm2) {
    const auto path = test::smollm2();
    if (!path) GTEST_SKIP() << test::kNoSmollm2;
    auto m = Model::load(*path, {.n_ctx = 1024});
    ASSERT_TRUE(m.ok());
    const auto prompt = m->tokenize("int add(int a, int b) { return a + b; }\nint sub(int a, int b) { return a - b; }\nThe same again:\n"
                                    "int add(int a, int b) {");
    EXPECT_GT(expect_same_text(*m, *prompt, QUERN_TEST_SLOW ? 8 : 64, 512), QUERN_TEST_SLOW ? 0u : 20u);
}

TEST(SameText, WithForksTruncationAndDecodeAll) {
    auto m = Model::load((test::tiny_dir() / "llama-q4_0.gguf").string(), {});
    ASSERT_TRUE(m.ok());
    GenerateOptions o{.sampler = {.temperature = 0}, .max_tokens = 40, .ignore_end_of_generation = true};
    o.lookup = true;
    const auto prompt = repeated({5, 6, 7, 8, 9, 100, 3}, 5);
    auto a = m->new_session();
    ASSERT_TRUE(a->generate(prompt, o).ok());
    // Stopped by the caller in the middle of what was guessed.
    int left = 9;
    o.on_text = [&](std::string_view) { return --left > 0; };
    ASSERT_TRUE(a->generate({}, o).ok());
    o.on_text = {};
    auto b = a->fork();
    ASSERT_TRUE(b.ok());
    const auto x = a->generate({}, o), y = b->generate({}, o);
    EXPECT_EQ(x->tokens, y->tokens);
    // One token of decode_all is run, even where it had been guessed and run already.
    std::vector<Token> all(a->tokens().begin(), a->tokens().end());
    auto fresh = m->new_session();
    ASSERT_TRUE(fresh->decode(all).ok());
    std::vector<float> one, want;
    const Token next = static_cast<Token>(std::ranges::max_element(fresh->logits()) - fresh->logits().begin());
    ASSERT_TRUE(a->decode_all({&next, 1}, one).ok() && fresh->decode_all({&next, 1}, want).ok());
    EXPECT_EQ(one, want);
    EXPECT_EQ(want.size(), m->info().n_vocab);
    ASSERT_TRUE(a->truncate(50).ok() && fresh->truncate(50).ok());
    ASSERT_TRUE(a->decode(prompt).ok() && fresh->decode(prompt).ok());
    EXPECT_TRUE(std::ranges::equal(a->logits(), fresh->logits()));
}

TEST(SameText, WhereGuessesFindNoPage) {
    auto m = Model::load((test::tiny_dir() / "llama-q4_0.gguf").string(), {.n_ctx = 64});
    ASSERT_TRUE(m.ok());
    auto other = m->new_session(), s = m->new_session();
    ASSERT_TRUE(other->decode({std::vector<Token>(16, 400)}).ok());
    GenerateOptions o{.sampler = {.temperature = 0}, .ignore_end_of_generation = true};
    o.lookup = true;
    const auto r = s->generate(repeated({5, 6, 7}, 10), o);
    ASSERT_TRUE(r.ok()) << r.error().message;
    EXPECT_EQ(r->stop_reason, StopReason::context_full);
    EXPECT_EQ(s->tokens().size(), 48u) << "all that there is";
}

}  // namespace
}  // namespace quern
