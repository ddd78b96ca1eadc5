// SPDX-License-Identifier: Apache-2.0
// ContextPolicy::compress: which blocks go, that the rest is as if it had been read alone, and that what matters stays.
#include "engine/run/compress.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "engine/api/model_impl.h"
#include "tests/support/models.h"

namespace quern {
namespace {

using engine::keep_attended;

constexpr std::uint32_t kBlock = engine::RunArgs::kObservedBlock;
constexpr KvType kTypes[] = {KvType::f16, KvType::f32, KvType::two_tier, KvType::q8, KvType::q4};

/// Blocks that kept positions touch.
std::vector<std::uint32_t> blocks_of(const std::vector<std::uint32_t>& kept) {
    std::vector<std::uint32_t> out;
    for (const std::uint32_t p : kept)
        if (out.empty() || out.back() != p / kBlock) out.push_back(p / kBlock);
    return out;
}

TEST(KeepAttended, TheLeastAttendedGoAndTheOlderOfEquals) {
    const double shares[] = {0, 5, 1, 3, 1, 9, 0, 0};
    EXPECT_EQ(blocks_of(keep_attended(shares, 8 * kBlock, 16, 7 * kBlock)), (std::vector<std::uint32_t>{0, 1, 2, 3, 4, 5, 7}));
    EXPECT_EQ(blocks_of(keep_attended(shares, 8 * kBlock, 16, 6 * kBlock)), (std::vector<std::uint32_t>{0, 1, 3, 4, 5, 7}));
    EXPECT_EQ(blocks_of(keep_attended(shares, 8 * kBlock, 16, 5 * kBlock)), (std::vector<std::uint32_t>{0, 1, 3, 5, 7}));
    EXPECT_EQ(blocks_of(keep_attended(shares, 8 * kBlock, 16, 3 * kBlock)), (std::vector<std::uint32_t>{0, 5, 7}));
    EXPECT_EQ(blocks_of(keep_attended(shares, 8 * kBlock, 0, 7 * kBlock)), (std::vector<std::uint32_t>{1, 2, 3, 4, 5, 6, 7})) << "nothing at the start is kept for ever";
    EXPECT_EQ(blocks_of(keep_attended(shares, 8 * kBlock, 2 * kBlock + 1, 5 * kBlock)), (std::vector<std::uint32_t>{0, 1, 2, 5, 7}));
}

TEST(KeepAttended, EveryBoundHolds) {
    std::mt19937 rng(7);
    for (int round = 0; round < 2000; ++round) {
        const std::uint32_t n = 2 + rng() % 400, first = rng() % (n - 1), most = first + rng() % (n - first);
        std::vector<double> shares(engine::RunArgs::observed_blocks(n));
        for (double& s : shares) s = rng() % 4;
        const auto kept = keep_attended(shares, n, first, most);
        ASSERT_LE(kept.size(), most);
        ASSERT_TRUE(std::ranges::is_sorted(kept) && std::ranges::adjacent_find(kept) == kept.end());
        for (std::uint32_t i = 0; i < first; ++i) ASSERT_EQ(kept[i], i);
        if (most > first) { ASSERT_EQ(kept.back(), n - 1); }
        ASSERT_GT(kept.size() + kBlock, most) << "more went than had to";
    }
}

class Compress : public testing::TestWithParam<KvType> {
protected:
    Model load(const ModelOptions& options) {
        auto m = Model::load((test::tiny_dir() / "llama-q4_0.gguf").string(), options);
        EXPECT_TRUE(m.ok());
        return std::move(*m);
    }
    static std::vector<Token> text(std::size_t n) {
        std::mt19937 rng(3);
        std::vector<Token> out(n);
        for (Token& t : out) t = static_cast<Token>(rng() % 512);
        return out;
    }
};

TEST_P(Compress, EqualsReadingWhatIsKeptAfresh) {
    constexpr std::uint32_t kContext = 400;
    const Model model = load({.n_ctx = 3 * kContext, .kv_type = GetParam(), .kv_sessions = 2});
    for (const bool lookup : {false, true}) {
        auto s = model.new_session(kContext);
        std::size_t n_drops = 0;
        GenerateOptions o{.sampler = {.seed = 5}, .max_tokens = 460, .ignore_end_of_generation = true};
        o.lookup = lookup;
        o.context_policy = ContextPolicy::compress;
        o.context_overlap = 0.6f;
        o.on_slide = [&](std::uint32_t dropped, std::uint32_t left) {
            ++n_drops;
            const std::vector<Token> now(s->tokens().begin(), s->tokens().end());
            EXPECT_EQ(now.size(), left);
            EXPECT_EQ(left + dropped, kContext);
            EXPECT_LE(left, 16 + 0.6 * (kContext - 16));
            EXPECT_GT(left + kBlock, 16 + 0.6 * (kContext - 16) - 1);
        };
        const auto r = s->generate(text(300), o);
        ASSERT_TRUE(r.ok()) << r.error().message;
        EXPECT_EQ(r->tokens.size(), 460u);
        EXPECT_GE(n_drops, 2u);
        EXPECT_EQ(r->n_dropped, 300 + 460 - s->tokens().size());
        std::vector<Token> all(s->tokens().begin(), s->tokens().end());
        const Token one[] = {7};
        ASSERT_LT(all.size(), kContext);
        ASSERT_TRUE(s->decode(one).ok());
        all.push_back(7);
        auto fresh = model.new_session(kContext);
        ASSERT_TRUE(fresh->decode(all).ok());
        EXPECT_TRUE(std::ranges::equal(s->logits(), fresh->logits())) << "lookup " << lookup;
    }
}

std::vector<double> observed(const Model& model, const std::vector<Token>& text, std::uint32_t n_batch) {
    engine::Executor& x = *Internals::shared(model)->executor;
    x.set_batch(n_batch);
    engine::Sequence q(x, static_cast<std::uint32_t>(text.size()));
    EXPECT_TRUE(q.append(text, false).ok());
    EXPECT_TRUE(q.run().ok());
    const std::vector<float> before(q.logits().begin(), q.logits().end());
    auto shares = q.observe();
    EXPECT_TRUE(shares.ok());
    EXPECT_TRUE(q.logits().empty() && q.need_logits().ok());
    EXPECT_TRUE(std::ranges::equal(q.logits(), before)) << "the cache is as it was";
    return *std::move(shares);
}

/// Each of the newest tokens gives each head's attention away once.
TEST_P(Compress, SharesAddUp) {
    for (const std::size_t n : {2u, 5u, 16u, 17u, 31u, 300u, 519u}) {
        const Model model = load({.n_ctx = 600, .kv_type = GetParam()});
        const ModelInfo& info = model.info();
        const auto shares = observed(model, text(n), 512);
        ASSERT_EQ(shares.size(), (n + kBlock - 1) / kBlock);
        const double want = static_cast<double>(std::min<std::size_t>(n, engine::Sequence::kObserved) * info.n_layer * info.n_head);
        EXPECT_NEAR(std::accumulate(shares.begin(), shares.end(), 0.0), want, want * 1e-5) << "float sums of weights, of " << n << " tokens";
        for (const double s : shares) EXPECT_GT(s, 0);
    }
}

TEST_P(Compress, SharesAreTheSameBitsEverywhere) {
    const std::vector<Token> tokens = text(310);   // two-tier: 32 of them quantized
    std::vector<double> want;
    for (const std::string& isa : test::runnable_isas())
        for (const auto& [threads, n_batch] : {std::pair(1, 512u), std::pair(3, 24u)}) {
            const auto got = observed(load({.n_threads = threads, .isa = isa, .n_ctx = 310, .kv_type = GetParam()}), tokens, n_batch);
            if (want.empty()) want = got;
            EXPECT_EQ(got, want) << isa << ", " << threads << " threads, steps of " << n_batch;
        }
}

TEST_P(Compress, SmallestBatchAndContexts) {
    for (const std::uint32_t n_batch : {1u, 3u}) {
        const Model model = load({.n_ctx = 100, .kv_type = GetParam(), .n_batch = n_batch});
        for (const std::uint32_t n_ctx : {18u, 48u, 100u})
            for (const float overlap : {0.0f, 0.5f, 0.99f}) {
                if (QUERN_TEST_SLOW && n_batch == 3 && overlap != 0.5f) continue;
                GenerateOptions o{.max_tokens = 120, .ignore_end_of_generation = true};
                o.context_policy = ContextPolicy::compress;
                o.context_overlap = overlap;
                const auto r = model.new_session(n_ctx)->generate(text(10), o);
                ASSERT_TRUE(r.ok()) << r.error().message;
                EXPECT_EQ(r->tokens.size(), 120u) << n_ctx << ", " << overlap;
            }
    }
}

INSTANTIATE_TEST_SUITE_P(EveryCache, Compress, testing::ValuesIn(kTypes));

/// A code told at the start of a long text about something else is still known when most of that has gone.
TEST(CompressSmollm2, WhatIsAskedForOutlivesTheRest) {
    const auto path = test::smollm2();
    if (!path) GTEST_SKIP() << test::kNoSmollm2;
    const char* about[] = {"The grass is green and the sky is blue, and the sun shines on the hills. ",
                           "Here we go there and back again along the quiet road by the river. ",
                           "Farmers bring their vegetables to the market every morning before sunrise. ",
                           "The library opens at nine and closes late in the evening. ",
                           "A train passes through the valley twice a day, carrying timber. "};
    std::string text = "The following is a description of a small town. ";
    for (int i = 0; i < 30; ++i) {
        if (i == 6) text += "The secret code that opens the vault is 73914. ";
        text += about[(i * 2 + i / 5) % 5];
    }
    text += "\nQuestion: What is the secret code that opens the vault?\nAnswer: The secret code that opens the vault is";
    for (const KvType type : {KvType::f16, KvType::two_tier}) {
        const auto model = Model::load(*path, {.n_ctx = 1024, .kv_type = type});
        ASSERT_TRUE(model.ok());
        const auto prompt = model->tokenize(text);
        GenerateOptions o{.sampler = {.temperature = 0}, .max_tokens = 8};
        o.context_overlap = 0.4f;
        // The context is full with the prompt, so the whole answer comes from what is kept.
        const auto answer = [&](ContextPolicy policy) {
            o.context_policy = policy;
            const auto r = model->new_session(static_cast<std::uint32_t>(prompt->size()))->generate(*prompt, o);
            EXPECT_TRUE(r.ok() && r->n_dropped > prompt->size() / 2);
            return r.ok() ? r->text : r.error().message;
        };
        EXPECT_NE(answer(ContextPolicy::compress).find("73914"), std::string::npos);
        EXPECT_EQ(answer(ContextPolicy::slide).find("73914"), std::string::npos) << "the text would not tell the two apart";
    }
}

}  // namespace
}  // namespace quern
