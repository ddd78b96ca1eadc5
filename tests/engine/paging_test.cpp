// SPDX-License-Identifier: Apache-2.0
// Sessions that share pages: what each computes is what it would compute alone, and every page comes back.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "engine/api/model_impl.h"
#include "quern/quern.hpp"
#include "tests/engine/counting_new.h"
#include "tests/support/models.h"

namespace quern {
namespace {

constexpr std::uint32_t kPage = 16;

std::string tiny(const char* name = "llama-q4_0.gguf") { return (test::tiny_dir() / name).string(); }

std::vector<Token> random_tokens(std::size_t n, std::uint32_t seed) {
    std::mt19937 rng(seed);
    std::vector<Token> out(n);
    for (Token& t : out) t = static_cast<Token>(rng() % 512);
    return out;
}

std::uint32_t n_free(const Model& m) { return Internals::of(m).executor->pages().n_free(); }

std::vector<float> logits(const Session& s) { return {s.logits().begin(), s.logits().end()}; }

std::vector<float> alone(const Model& m, std::span<const Token> tokens) {
    auto s = m.new_session();
    EXPECT_TRUE(s->decode(tokens).ok());
    return logits(*s);
}

std::vector<Token> joined(std::vector<Token> a, std::span<const Token> b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return !a.empty() && a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST(Fork, BranchesEqualRunsOfTheirOwn) {
    for (const KvType kv : {KvType::f16, KvType::f32}) {
        auto m = Model::load(tiny(), {.kv_type = kv});
        ASSERT_TRUE(m.ok());
        const std::uint32_t before = n_free(*m);
        for (const std::uint32_t n : {1u, 15u, 16u, 17u, 40u}) {  // on a page's border and inside
            const auto prompt = random_tokens(n, n), left = random_tokens(20, 100 + n), right = random_tokens(20, 200 + n);
            const auto want_left = alone(*m, joined(prompt, left)), want_right = alone(*m, joined(prompt, right));
            auto a = m->new_session();
            ASSERT_TRUE(a->decode(prompt).ok());
            const std::uint32_t with_one = n_free(*m);
            auto b = a->fork();
            ASSERT_TRUE(b.ok()) << b.error().message;
            EXPECT_EQ(n_free(*m), with_one) << "a fork alone takes no page";
            EXPECT_TRUE(same_bits(logits(*a), logits(*b)));
            auto c = b->fork();
            ASSERT_TRUE(c.ok());
            // Token by token in turns: each write would show in the other if a page were still shared.
            for (std::size_t i = 0; i < left.size(); ++i) {
                ASSERT_TRUE(a->decode({&left[i], 1}).ok());
                ASSERT_TRUE(b->decode({&right[i], 1}).ok());
            }
            EXPECT_TRUE(same_bits(logits(*a), want_left)) << n;
            EXPECT_TRUE(same_bits(logits(*b), want_right)) << n;
            ASSERT_TRUE(c->decode(left).ok());
            EXPECT_TRUE(same_bits(logits(*c), want_left)) << n;
        }
        EXPECT_EQ(n_free(*m), before) << "every page came back";
    }
}

TEST(Fork, TokensNotYetRunGoAlong) {
    auto m = Model::load(tiny(), {});
    ASSERT_TRUE(m.ok());
    const GenerateOptions o{.sampler = {.temperature = 0}, .max_tokens = 8, .ignore_end_of_generation = true};
    auto a = m->new_session();
    ASSERT_TRUE(a->generate(random_tokens(25, 1), o).ok());  // the last token is appended and not run
    auto b = a->fork();
    ASSERT_TRUE(b.ok());
    const auto x = a->generate({}, o), y = b->generate({}, o);
    ASSERT_TRUE(x.ok() && y.ok());
    EXPECT_EQ(x->tokens, y->tokens);
    EXPECT_TRUE(std::ranges::equal(a->tokens(), b->tokens()));
}

TEST(Fork, TruncatingIntoASharedPageLeavesTheOtherAlone) {
    auto m = Model::load(tiny(), {});
    ASSERT_TRUE(m.ok());
    const auto prompt = random_tokens(48, 5), other = random_tokens(30, 6), more = random_tokens(3, 7);
    auto a = m->new_session();
    ASSERT_TRUE(a->decode(prompt).ok());
    auto b = a->fork();
    ASSERT_TRUE(b.ok());
    ASSERT_TRUE(b->truncate(20).ok());
    ASSERT_TRUE(b->decode(other).ok());
    EXPECT_TRUE(same_bits(logits(*b), alone(*m, joined({prompt.begin(), prompt.begin() + 20}, other))));
    ASSERT_TRUE(a->decode(more).ok());
    EXPECT_TRUE(same_bits(logits(*a), alone(*m, joined(prompt, more))));
}

TEST(Fork, WithoutAPageToCopyToIsAnError) {
    auto m = Model::load(tiny(), {.n_ctx = 2 * kPage});
    ASSERT_TRUE(m.ok());
    auto a = m->new_session();
    const auto prompt = random_tokens(20, 3);
    const Token t = 9;
    ASSERT_TRUE(a->decode(prompt).ok());
    {
        auto b = a->fork();
        ASSERT_TRUE(b.ok());
        const Status s = b->decode({&t, 1});
        ASSERT_FALSE(s.ok());
        EXPECT_EQ(s.error().code, Errc::context_full);
        EXPECT_NE(s.error().message.find("no page left"), std::string::npos) << s.error().message;
        EXPECT_EQ(b->tokens().size(), 20u);
    }
    ASSERT_TRUE(a->decode({&t, 1}).ok()) << "alone again, it writes where it is";
}

TEST(Fork, DecodingAllocatesNothing) {
#ifdef QUERN_TEST_SANITIZED
    GTEST_SKIP() << "the sanitizer brings its own operator new, which cannot be counted";
#endif
    auto m = Model::load(tiny(), {});
    ASSERT_TRUE(m.ok());
    auto a = m->new_session();
    ASSERT_TRUE(a->decode(random_tokens(30, 4)).ok());
    auto b = a->fork();
    ASSERT_TRUE(b.ok());
    const auto before = test::allocation_count();
    for (Token t = 0; t < 100; ++t) ASSERT_TRUE(a->decode({&t, 1}).ok() && b->decode({&t, 1}).ok());
    EXPECT_EQ(test::allocation_count(), before);
}

}  // namespace
}  // namespace quern
