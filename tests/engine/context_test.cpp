// SPDX-License-Identifier: Apache-2.0
// What happens when the context is full, as the caller chose it, and that it is said.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "quern/quern.hpp"
#include "tests/support/models.h"

namespace quern {
namespace {

constexpr std::uint32_t kContext = 48, kKeep = 8;

class Slide : public testing::Test {
protected:
    void SetUp() override {
        auto m = Model::load((test::tiny_dir() / "llama-q4_0.gguf").string(), {.n_ctx = 2 * kContext});
        ASSERT_TRUE(m.ok());
        model_ = std::make_unique<Model>(std::move(*m));
        std::mt19937 rng(3);
        for (Token& t : prompt_) t = static_cast<Token>(rng() % 512);
    }
    GenerateOptions options(std::int64_t max_tokens) {
        GenerateOptions o{.sampler = {.seed = 5}, .max_tokens = max_tokens, .ignore_end_of_generation = true};
        o.context_policy = ContextPolicy::slide;
        o.context_keep = kKeep;
        o.on_slide = [this](std::uint32_t dropped, std::uint32_t left) { slides_.emplace_back(dropped, left); };
        return o;
    }

    std::unique_ptr<Model> model_;
    std::vector<Token> prompt_ = std::vector<Token>(20);
    std::vector<std::pair<std::uint32_t, std::uint32_t>> slides_;
};

/// The same by hand: a new session reads what is kept, at the positions that it now has.
TEST_F(Slide, EqualsReadingWhatIsKeptAfresh) {
    auto s = model_->new_session(kContext);
    const auto r = s->generate(prompt_, options(100));
    ASSERT_TRUE(r.ok()) << r.error().message;
    EXPECT_EQ(r->stop_reason, StopReason::max_tokens);

    auto sampler = Sampler::create({.seed = 5}, model_->info().n_vocab);
    std::vector<Token> text = prompt_, want;
    std::vector<std::pair<std::uint32_t, std::uint32_t>> slides;
    while (want.size() < 100) {
        if (text.size() == kContext) {
            const std::uint32_t rest = kContext - kKeep, left = rest / 2;
            text.erase(text.begin() + kKeep, text.end() - left);
            slides.emplace_back(rest - left, kKeep + left);
        }
        auto fresh = model_->new_session(kContext);
        ASSERT_TRUE(fresh->decode(text).ok());
        want.push_back(*sampler->sample(fresh->logits()));
        text.push_back(want.back());
    }
    EXPECT_EQ(r->tokens, want);
    EXPECT_GE(slides.size(), 3u);
    EXPECT_EQ(slides_, slides);
    EXPECT_EQ(r->n_dropped, slides.size() * slides[0].first);
    EXPECT_TRUE(std::ranges::equal(s->tokens(), text));
    EXPECT_TRUE(std::equal(prompt_.begin(), prompt_.begin() + kKeep, s->tokens().begin()));
}

TEST_F(Slide, StopIsTheDefault) {
    GenerateOptions o = options(100);
    o.context_policy = GenerateOptions{}.context_policy;
    const auto r = model_->new_session(kContext)->generate(prompt_, o);
    ASSERT_TRUE(r.ok());
    EXPECT_EQ(r->stop_reason, StopReason::context_full);
    EXPECT_EQ(r->n_dropped, 0u);
    EXPECT_TRUE(slides_.empty());
}

TEST_F(Slide, MakesRoomForAPrompt) {
    auto s = model_->new_session(kContext);
    ASSERT_TRUE(s->generate(prompt_, options(20)).ok());  // 40 of 48
    std::vector<Token> want(s->tokens().begin(), s->tokens().begin() + kKeep);
    want.insert(want.end(), s->tokens().end() - 16, s->tokens().end());
    want.insert(want.end(), prompt_.begin(), prompt_.end());
    const auto r = s->generate(prompt_, options(1));
    ASSERT_TRUE(r.ok()) << r.error().message;
    ASSERT_EQ(slides_.size(), 1u);
    EXPECT_EQ(slides_[0], std::pair(16u, 24u));
    want.push_back(r->tokens[0]);
    EXPECT_TRUE(std::ranges::equal(s->tokens(), want));
    // With the prompt alone too long for what is kept beside it, nothing is dropped.
    slides_.clear();
    const std::vector<Token> before(s->tokens().begin(), s->tokens().end());
    const auto full = s->generate(std::vector<Token>(kContext - kKeep, 7), options(1));
    ASSERT_FALSE(full.ok());
    EXPECT_EQ(full.error().code, Errc::context_full);
    EXPECT_TRUE(slides_.empty());
    EXPECT_TRUE(std::ranges::equal(s->tokens(), before));
}

TEST_F(Slide, EveryOverlapGoesOn) {
    for (const float overlap : {0.0f, 0.01f, 0.3f, 0.99f})
        for (const std::uint32_t keep : {0u, 1u, 30u, kContext - 2}) {
            GenerateOptions o = options(60);
            o.context_overlap = overlap;
            o.context_keep = keep;
            o.lookup = keep == 1;
            const auto r = model_->new_session(kContext)->generate(prompt_, o);
            ASSERT_TRUE(r.ok()) << r.error().message;
            EXPECT_EQ(r->tokens.size(), 60u) << overlap << ", " << keep;
        }
}

TEST_F(Slide, OptionsOutOfRange) {
    auto s = model_->new_session(kContext);
    GenerateOptions o = options(1);
    o.context_keep = kContext - 1;
    EXPECT_NE(s->generate(prompt_, o).error().message.find("context_keep is 47"), std::string::npos);
    for (const float overlap : {-0.1f, 1.0f, std::nanf("")}) {
        o = options(1);
        o.context_overlap = overlap;
        EXPECT_EQ(s->generate(prompt_, o).error().code, Errc::invalid_argument) << overlap;
    }
}

TEST_F(Slide, CanBeCancelled) {
    auto s = model_->new_session(kContext);
    GenerateOptions o = options(-1);
    o.on_slide = [&](std::uint32_t, std::uint32_t) { s->cancel(); };
    const auto r = s->generate(prompt_, o);
    ASSERT_TRUE(r.ok());
    EXPECT_EQ(r->stop_reason, StopReason::cancelled);
    EXPECT_EQ(r->tokens.size(), kContext - prompt_.size());
}

}  // namespace
}  // namespace quern
