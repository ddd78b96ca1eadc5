// SPDX-License-Identifier: Apache-2.0
// A real model against a float32 reference in which no activation is rounded (shared/oracle/smollm2).
#include <gtest/gtest.h>

#include <cmath>

#include "quern/quern.hpp"
#include "tests/support/models.h"

namespace quern {
namespace {

class Smollm2 : public testing::Test {
protected:
    void SetUp() override {
        const auto path = test::smollm2();
        if (!path) GTEST_SKIP() << test::kNoSmollm2;
        if (!test::fs::exists(test::smollm2_oracle() / "reference.json")) GTEST_SKIP() << test::kNoShared;
        reference_ = test::read_json(test::smollm2_oracle() / "reference.json");
        path_ = *path;
        load({});
    }
    void load(const ModelOptions& options) {
        auto m = Model::load(path_, options);
        ASSERT_TRUE(m.ok()) << m.error().message;
        model_ = std::make_unique<Model>(std::move(*m));
    }
    /// Over all prefixes of the reference's text.
    struct Divergence { double loss, want_loss, kl; };
    Divergence measure();
    std::string path_;
    nlohmann::json reference_;
    std::unique_ptr<Model> model_;
};

double log_sum_exp(const float* x, std::size_t n) {
    double m = x[0], s = 0;
    for (std::size_t i = 1; i < n; ++i) m = std::max<double>(m, x[i]);
    for (std::size_t i = 0; i < n; ++i) s += std::exp(x[i] - m);
    return m + std::log(s);
}

Smollm2::Divergence Smollm2::measure() {
    const auto ids = reference_["text_ids"].get<std::vector<Token>>();
    const auto nll = reference_["nll"].get<std::vector<double>>();   // of token i + 1 after the first i + 1
    const auto top_ids = test::read_array<std::int32_t>(test::smollm2_oracle() / "top64_ids.i32");
    const auto top_lp = test::read_array<float>(test::smollm2_oracle() / "top64_logprobs.f32");
    EXPECT_EQ(top_ids.size(), ids.size() * 64);
    std::vector<float> logits;
    auto s = model_->new_session();
    EXPECT_TRUE(s->decode_all(ids, logits).ok());
    if (HasFailure()) return {};
    const std::size_t n_vocab = model_->info().n_vocab;

    double loss = 0, want_loss = 0, kl = 0;
    int n_loss = 0, same_best = 0;
    for (std::size_t i = 0; i < ids.size(); ++i) {
        const float* row = logits.data() + i * n_vocab;
        const double lse = log_sum_exp(row, n_vocab);
        if (i >= 256 && i <= 510) {
            loss += lse - row[ids[i + 1]];
            want_loss += nll[i];
            ++n_loss;
        }
        for (int k = 0; k < 64; ++k) {
            const double p = top_lp[i * 64 + k];
            kl += std::exp(p) * (p - (row[top_ids[i * 64 + k]] - lse));
        }
        same_best += static_cast<std::size_t>(std::max_element(row, row + n_vocab) - row) == static_cast<std::size_t>(top_ids[i * 64]);
    }
    kl /= static_cast<double>(ids.size());
    std::printf("loss %.5f, reference %.5f; mean KL over the top 64 %.5f; same best token %.1f%%\n", loss / n_loss, want_loss / n_loss, kl, 100.0 * same_best / static_cast<double>(ids.size()));
    return {loss / n_loss, want_loss / n_loss, kl};
}

TEST_F(Smollm2, LossAndDivergence) {
    const Divergence d = measure();
    EXPECT_NEAR(d.loss, d.want_loss, 0.01);
    // llama.cpp's own rounding costs 0.0029 on such text.
    EXPECT_LT(d.kl, 0.003);
}

// The rounding of activations, 0.0022, and what the cache adds: 0.0019, 0.0035 and 0.0072 were measured. A tail of 64 instead of
// 256, as the text has 512 tokens only; docs/numerics.md has figures for 2,048.
TEST_F(Smollm2, DivergenceOfQuantizedCaches) {
    struct Case { KvType type; std::int32_t tail; double most; };
    for (const Case c : {Case{KvType::q8, 0, 0.003}, Case{KvType::two_tier, 64, 0.005}, Case{KvType::q4, 0, 0.01}}) {
        ModelOptions o;
        o.kv_type = c.type;
        o.kv_tail = c.tail;
        load(o);
        EXPECT_LT(measure().kl, c.most) << "type " << int(c.type);
    }
}

TEST_F(Smollm2, GreedyTextEqualsTheReference) {
    for (const auto& g : reference_["greedy"]) {
        const auto prompt = g["prompt_ids"].get<std::vector<Token>>();
        const auto want = g["greedy_ids"].get<std::vector<Token>>();
        const auto margins = g["margins"].get<std::vector<double>>();
        auto s = model_->new_session();
        GenerateOptions o;
        o.sampler.temperature = 0;
        o.max_tokens = static_cast<std::int64_t>(want.size());
        o.ignore_end_of_generation = true;
        auto r = s->generate(prompt, o);
        ASSERT_TRUE(r.ok()) << r.error().message;
        std::size_t i = 0;
        while (i < want.size() && r->tokens[i] == want[i]) ++i;
        // A step whose two best tokens lie close may fall the other way under int8 activations.
        EXPECT_TRUE(i == want.size() || margins[i] < 0.25) << "step " << i << " of " << want.size() << ": token " << r->tokens[i] << ", reference " << want[i] << ", margin " << margins[i];
    }
}

}  // namespace
}  // namespace quern
