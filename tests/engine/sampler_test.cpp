// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "engine/sample/chain.h"
#include "quern/quern.hpp"
#include "tests/engine/counting_new.h"

namespace quern {
namespace {

using engine::Candidate;
using engine::Chain;
using engine::Random;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
// Logits are floats: a logit near 3 is off by up to 2^-23, which moves a probability by that share of itself.
constexpr double kTolerance = 1e-6;

/// Everything off: the softmax of the logits.
SamplerOptions plain() {
    SamplerOptions o;
    o.temperature = 1;
    o.top_k = 0;
    o.top_p = 1;
    o.min_p = 0;
    return o;
}

Chain make_chain(const SamplerOptions& options, std::size_t n_vocab) {
    auto chain = Chain::create(options, static_cast<std::uint32_t>(n_vocab));
    EXPECT_TRUE(chain) << chain.error().message;
    return *std::move(chain);
}

std::vector<float> logs(const std::vector<double>& p) {
    std::vector<float> out;
    for (double v : p) out.push_back(static_cast<float>(std::log(v)));
    return out;
}

/// Probability of each token, 0 where it cannot come.
std::vector<double> distribution(Chain& chain, const std::vector<float>& logits) {
    std::vector<double> out(logits.size(), 0);
    const auto d = chain.distribution(logits);
    EXPECT_TRUE(d) << d.error().message;
    if (d) {
        for (const Candidate& c : *d) out[static_cast<std::size_t>(c.id)] += c.p;
    }
    return out;
}

void expect_distribution(const SamplerOptions& options, const std::vector<float>& logits,
                         const std::vector<double>& expected) {
    Chain chain = make_chain(options, logits.size());
    const auto got = distribution(chain, logits);
    for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(got[i], expected[i], kTolerance) << "token " << i;
}

const std::vector<double> kP{0.1, 0.4, 0.05, 0.3, 0.15};

TEST(Chain, PlainIsSoftmax) { expect_distribution(plain(), logs(kP), kP); }

TEST(Chain, ExponentialMatchesTheLibrary) {
    // Two tokens, d apart: the second has e^-d / (1 + e^-d).
    Chain chain = make_chain(plain(), 2);
    for (float d = 0; d < 700; d = d * 1.03f + 0.01f) {
        const double e = std::exp(-double{d});
        const auto p = distribution(chain, {0, -d});
        ASSERT_NEAR(p[1], e / (1 + e), 2e-14 * e) << d;  // 6e-15 of the series, and a few roundings
    }
}

TEST(Chain, Temperature) {
    SamplerOptions o = plain();
    o.temperature = 0.5f;  // squares
    const double sum = 0.01 + 0.16 + 0.0025 + 0.09 + 0.0225;
    expect_distribution(o, logs(kP), {0.01 / sum, 0.16 / sum, 0.0025 / sum, 0.09 / sum, 0.0225 / sum});
    o.temperature = 1e-30f;
    expect_distribution(o, logs(kP), {0, 1, 0, 0, 0});
}

TEST(Chain, TopKOfManyIsThatOfASort) {
    constexpr std::size_t n = 20011;   // no multiple of anything
    Random random(5);
    for (const int kind : {0, 1, 2, 3}) {
        std::vector<float> logits(n);
        for (float& v : logits) v = static_cast<float>(random.uniform() * 20 - 10);
        if (kind == 1)   // few values, so many alike
            for (float& v : logits) v = std::floor(v / 4);
        if (kind == 2)   // the best side by side, and much that cannot come
            for (std::size_t i = 0; i < n; ++i) logits[i] = i / 300 == 7 ? logits[i] + 30 : i % 3 == 0 ? kNan : i % 3 == 1 ? -kInf : logits[i];
        if (kind == 3)   // fewer than are asked for
            for (std::size_t i = 0; i < n; ++i) if (i % 1000 != 3) logits[i] = -kInf;
        for (const std::int32_t k : {1, 7, 8, 40, 78, 79, 80, 500, 20010}) {
            SamplerOptions o = plain();
            o.top_k = k;
            Chain chain = make_chain(o, n);
            std::vector<Token> want;
            for (std::size_t i = 0; i < n; ++i)
                if (logits[i] > -kInf) want.push_back(static_cast<Token>(i));
            std::stable_sort(want.begin(), want.end(), [&](Token a, Token b) { return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)]; });
            want.resize(std::min(want.size(), static_cast<std::size_t>(k)));
            const auto d = chain.distribution(logits);
            ASSERT_TRUE(d);
            std::vector<Token> got;
            for (const Candidate& c : *d) got.push_back(c.id);
            ASSERT_EQ(got, want) << "kind " << kind << ", k " << k;
        }
    }
}

TEST(Chain, TopK) {
    SamplerOptions o = plain();
    o.top_k = 2;
    expect_distribution(o, logs(kP), {0, 0.4 / 0.7, 0, 0.3 / 0.7, 0});
    o.top_k = 1;
    expect_distribution(o, logs(kP), {0, 1, 0, 0, 0});
    o.top_k = 5;
    expect_distribution(o, logs(kP), kP);
    o.top_k = 500;
    expect_distribution(o, logs(kP), kP);
    o.top_k = 2;
    expect_distribution(o, {1, 2, 1, 1}, {1 / (1 + std::exp(1)), 1 / (1 + std::exp(-1)), 0, 0});  // ties: lowest first
}

TEST(Chain, TopP) {
    SamplerOptions o = plain();
    o.top_p = 0.6f;
    expect_distribution(o, logs(kP), {0, 0.4 / 0.7, 0, 0.3 / 0.7, 0});
    o.top_p = 0.75f;
    expect_distribution(o, logs(kP), {0, 0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85});
    o.top_p = 0;
    expect_distribution(o, logs(kP), {0, 1, 0, 0, 0});
    // After top-k, the share is of what is left: 0.4 of 0.7 is 0.571.
    o.top_k = 2;
    o.top_p = 0.57f;
    expect_distribution(o, logs(kP), {0, 1, 0, 0, 0});
}

TEST(Chain, MinP) {
    SamplerOptions o = plain();
    o.min_p = 0.3f;  // at least 0.12
    expect_distribution(o, logs(kP), {0, 0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85});
    o.min_p = 1;
    expect_distribution(o, logs(kP), {0, 1, 0, 0, 0});
    o.min_p = 0.2f;  // at least 0.08, before temperature
    o.temperature = 0.5f;
    const double sum = 0.01 + 0.16 + 0.09 + 0.0225;
    expect_distribution(o, logs(kP), {0.01 / sum, 0.16 / sum, 0, 0.09 / sum, 0.0225 / sum});
}

TEST(Chain, Typical) {
    // Entropy of kP is 1.3925 nats. Distances of -log p: 0.910, 0.476, 1.603, 0.189, 0.505.
    SamplerOptions o = plain();
    o.typical_p = 0.2f;
    expect_distribution(o, logs(kP), {0, 0, 0, 1, 0});
    o.typical_p = 0.6f;
    expect_distribution(o, logs(kP), {0, 0.4 / 0.7, 0, 0.3 / 0.7, 0});
    o.typical_p = 0.8f;
    expect_distribution(o, logs(kP), {0, 0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85});
    o.typical_p = 0;
    expect_distribution(o, logs(kP), {0, 0, 0, 1, 0});
    // min-p looks at the best token that is left.
    o.typical_p = 0.2f;
    o.min_p = 0.9f;
    expect_distribution(o, logs(kP), {0, 0, 0, 1, 0});
}

TEST(Chain, Penalties) {
    SamplerOptions o = plain();
    o.repeat_penalty = 2;
    o.frequency_penalty = 0.25f;
    o.presence_penalty = 0.5f;
    o.penalty_last_n = 3;
    const std::vector<float> logits{2, -1, 0.5f, 1};
    Chain chain = make_chain(o, 4);
    for (const Token t : {3, 0, 0, 1}) chain.accept(t);  // the 3 has left the window
    const std::vector<double> after{2.0 / 2 - 2 * 0.25 - 0.5, -1.0 * 2 - 0.25 - 0.5, 0.5, 1};
    double sum = 0;
    for (const double l : after) sum += std::exp(l);
    for (int again = 0; again < 2; ++again) {
        const auto p = distribution(chain, logits);
        for (std::size_t i = 0; i < 4; ++i) EXPECT_NEAR(p[i], std::exp(after[i]) / sum, kTolerance);
    }
    chain.reset();
    sum = 0;
    for (const float l : logits) sum += std::exp(double{l});
    EXPECT_NEAR(distribution(chain, logits)[0], std::exp(2.0) / sum, kTolerance);
}

TEST(Chain, PenaltyWindowMatchesACountFromScratch) {
    for (const int last_n : {1, 2, 7, 64, -1}) {
        SamplerOptions o = plain();
        o.frequency_penalty = 0.5f;
        o.penalty_last_n = last_n;
        Chain chain = make_chain(o, 10);
        engine::Random random(9);
        std::vector<Token> history;
        for (int step = 0; step < 200; ++step) {
            const std::size_t window =
                last_n < 0 ? history.size() : std::min<std::size_t>(history.size(), static_cast<std::size_t>(last_n));
            std::vector<float> expected(10, 0);
            for (std::size_t i = history.size() - window; i < history.size(); ++i) {
                expected[static_cast<std::size_t>(history[i])] -= 0.5f;
            }
            Chain reference = make_chain(plain(), 10);
            ASSERT_EQ(distribution(chain, std::vector<float>(10, 0)), distribution(reference, expected))
                << last_n << " " << step;
            for (std::uint64_t n = random.next() % 4; n > 0; --n) {
                history.push_back(static_cast<Token>(random.next() % 10));
                chain.accept(history.back());
            }
        }
    }
}

TEST(Chain, LogitBias) {
    SamplerOptions o = plain();
    o.logit_bias = {{1, -kInf}, {3, std::log(2.0f)}};
    const double sum = 0.1 + 0.05 + 0.6 + 0.15;
    expect_distribution(o, logs(kP), {0.1 / sum, 0, 0.05 / sum, 0.6 / sum, 0.15 / sum});
}

TEST(Chain, CutsEqualAFullSort) {
    // A large vocabulary with many ties, every cut: against a plain reimplementation that sorts everything.
    constexpr std::size_t n = 5000;
    engine::Random random(3);
    std::vector<float> logits(n);
    for (float& l : logits) l = static_cast<float>(random.next() % 200) / 16;
    std::vector<Candidate> all;
    double total = 0;
    for (std::size_t i = 0; i < n; ++i) {
        all.push_back({static_cast<Token>(i), logits[i], std::exp(double{logits[i]} - 12.4375)});
        total += all.back().p;
    }
    std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.logit > b.logit; });
    for (const float top_p : {0.001f, 0.1f, 0.5f, 0.93f}) {
        SamplerOptions o = plain();
        o.top_p = top_p;
        Chain chain = make_chain(o, n);
        const auto got = chain.distribution(logits);
        ASSERT_TRUE(got);
        double held = 0;
        std::size_t kept = 0;
        while (held < top_p * total) held += all[kept++].p;
        ASSERT_EQ(got->size(), kept);
        std::vector<Token> expected;
        for (std::size_t i = 0; i < kept; ++i) expected.push_back(all[i].id);
        std::sort(expected.begin(), expected.end());
        for (std::size_t i = 0; i < kept; ++i) ASSERT_EQ((*got)[i].id, expected[i]);
    }
    double mean = 0;
    for (const Candidate& c : all) mean += c.p / total * c.logit;
    std::stable_sort(all.begin(), all.end(), [&](const Candidate& a, const Candidate& b) {
        return std::abs(a.logit - mean) < std::abs(b.logit - mean);
    });
    for (const float typical_p : {0.001f, 0.3f, 0.9f}) {
        SamplerOptions o = plain();
        o.typical_p = typical_p;
        Chain chain = make_chain(o, n);
        const auto got = distribution(chain, logits);
        double held = 0;
        std::size_t kept = 0;
        while (held <= typical_p * total) held += all[kept++].p;
        for (std::size_t i = 0; i < n; ++i) ASSERT_EQ(got[static_cast<std::size_t>(all[i].id)] > 0, i < kept) << i;
    }
    std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
    std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.logit > b.logit; });
    for (const int k : {2, 40, 700, 4999}) {
        SamplerOptions o = plain();
        o.top_k = k;
        Chain chain = make_chain(o, n);
        const auto got = chain.distribution(logits);
        ASSERT_TRUE(got);
        ASSERT_EQ(got->size(), static_cast<std::size_t>(k));
        for (std::size_t i = 0; i < got->size(); ++i) ASSERT_EQ((*got)[i].id, all[i].id);
    }
}

TEST(Sampler, GreedyTakesTheLowestOfEquals) {
    SamplerOptions o;
    o.temperature = 0;
    o.typical_p = 0.1f;  // would drop the best token; greedy looks at bias and penalties only
    auto s = Sampler::create(o, 100);
    ASSERT_TRUE(s);
    std::vector<float> logits(100, -5);
    logits[70] = logits[33] = logits[99] = 1;
    logits[2] = kNan;
    EXPECT_EQ(*s->sample(logits), 33);
    o.logit_bias = {{33, -1}};
    o.repeat_penalty = 2;
    s = Sampler::create(o, 100);
    s->accept(70);
    EXPECT_EQ(*s->sample(logits), 99);
    logits[98] = kInf;
    EXPECT_EQ(*s->sample(logits), 98);
}

TEST(Sampler, InfiniteAndMissingLogits) {
    expect_distribution(plain(), {kInf, 3, kInf, kNan, -kInf}, {0.5, 0, 0.5, 0, 0});
    expect_distribution(plain(), {kNan, 0, 0, -kInf, kNan}, {0, 0.5, 0.5, 0, 0});
    SamplerOptions o;
    o.logit_bias = {{0, -kInf}};
    for (const float temperature : {0.0f, 1.0f}) {
        o.temperature = temperature;
        auto s = Sampler::create(o, 3);
        ASSERT_TRUE(s);
        const auto none = s->sample(std::vector<float>{1, kNan, -kInf});
        ASSERT_FALSE(none);
        EXPECT_EQ(
            none.error().message,
            "sampler: each of the 3 logits is NaN or -infinity after logit_bias and penalties; no token can be chosen");
        EXPECT_EQ(*s->sample(std::vector<float>{1, 2, -kInf}), 1) << "an error leaves the sampler usable";
        EXPECT_EQ(s->sample(std::vector<float>{1}).error().message, "sampler: 1 logits given; the vocabulary has 3");
    }
}

TEST(Sampler, DrawsFollowTheDistribution) {
    // Pearson's chi-square over 40,000 draws; 5 degrees of freedom. 35.9 is passed by chance once in a million seeds.
    SamplerOptions o;
    o.temperature = 0.7f;
    o.top_k = 6;
    o.top_p = 1;
    o.min_p = 0;
    std::vector<float> logits{0.3f, -1, 2, 1.5f, 0, 0.9f, -4, -5, 1.1f};
    for (const std::uint64_t seed : {1, 2, 12345}) {
        o.seed = seed;
        Chain chain = make_chain(o, logits.size());
        const auto p = distribution(chain, logits);
        std::vector<int> counts(logits.size(), 0);
        constexpr int draws = 40000;
        for (int i = 0; i < draws; ++i) {
            const auto t = chain.sample(logits);
            ASSERT_TRUE(t);
            ++counts[static_cast<std::size_t>(*t)];
        }
        double chi2 = 0;
        int cells = 0;
        for (std::size_t i = 0; i < p.size(); ++i) {
            if (p[i] == 0) {
                EXPECT_EQ(counts[i], 0);
                continue;
            }
            ++cells;
            chi2 += std::pow(counts[i] - draws * p[i], 2) / (draws * p[i]);
        }
        EXPECT_EQ(cells, 6);
        EXPECT_LT(chi2, 35.9) << "seed " << seed;
    }
}

TEST(Sampler, SameSeedSameTokens) {
    std::vector<float> logits(1000);
    engine::Random random(5);
    for (float& l : logits) l = static_cast<float>(random.uniform() * 4);
    const auto draw = [&](Sampler& s) {
        std::vector<Token> out;
        for (int i = 0; i < 50; ++i) {
            out.push_back(*s.sample(logits));
            s.accept(out.back());
        }
        return out;
    };
    SamplerOptions o;
    o.seed = 7;
    o.frequency_penalty = 0.5f;
    auto a = Sampler::create(o, 1000), b = Sampler::create(o, 1000);
    o.seed = 8;
    auto c = Sampler::create(o, 1000);
    const auto first = draw(*a);
    EXPECT_EQ(first, draw(*b));
    EXPECT_NE(first, draw(*c));
    EXPECT_NE(first, draw(*a));
    a->reset();
    EXPECT_EQ(first, draw(*a));
}

TEST(Sampler, GeneratorIsXoshiro256PlusPlus) {
    // Computed apart, in Python, from the two papers' definitions.
    engine::Random a(0), b(42);
    for (const std::uint64_t v :
         {5987356902031041503u, 7051070477665621255u, 6633766593972829180u, 211316841551650330u})
        EXPECT_EQ(a.next(), v);
    for (const std::uint64_t v :
         {15021278609987233951u, 5881210131331364753u, 18149643915985481100u, 12933668939759105464u})
        EXPECT_EQ(b.next(), v);
}

TEST(Sampler, FieldErrorsNameFieldAndValue) {
    const auto message = [](auto change, std::uint32_t n_vocab = 100) {
        SamplerOptions o;
        change(o);
        const auto s = Sampler::create(o, n_vocab);
        return s ? std::string("none") : s.error().message;
    };
    using O = SamplerOptions&;
    EXPECT_EQ(message([](O) {}), "none");
    EXPECT_EQ(message([](O o) { o.temperature = -0.5f; }),
              "sampler option temperature is -0.5; it must be a finite number, 0 (greedy) or more");
    EXPECT_EQ(message([](O o) { o.temperature = kNan; }),
              "sampler option temperature is nan; it must be a finite number, 0 (greedy) or more");
    EXPECT_EQ(message([](O o) { o.top_k = -1; }), "sampler option top_k is -1; it must be 0 (off) or more");
    EXPECT_EQ(message([](O o) { o.top_p = 1.5f; }), "sampler option top_p is 1.5; it must be in 0 to 1 (off)");
    EXPECT_EQ(message([](O o) { o.min_p = kNan; }), "sampler option min_p is nan; it must be in 0 (off) to 1");
    EXPECT_EQ(message([](O o) { o.typical_p = -1; }), "sampler option typical_p is -1; it must be in 0 to 1 (off)");
    EXPECT_EQ(message([](O o) { o.repeat_penalty = 0; }),
              "sampler option repeat_penalty is 0; it must be a finite number above 0 (1: off)");
    EXPECT_EQ(message([](O o) { o.frequency_penalty = kInf; }),
              "sampler option frequency_penalty is inf; it must be a finite number (0: off)");
    EXPECT_EQ(message([](O o) { o.presence_penalty = -kInf; }),
              "sampler option presence_penalty is -inf; it must be a finite number (0: off)");
    EXPECT_EQ(message([](O o) { o.penalty_last_n = -2; }),
              "sampler option penalty_last_n is -2; it must be in 0 to 1048576, or -1 (all tokens)");
    EXPECT_EQ(message([](O o) {
                  o.logit_bias = {{100, 1.0f}};
              }),
              "sampler option logit_bias is for token 100; it must be for tokens 0 to 99");
    EXPECT_EQ(
        message([](O o) {
            o.logit_bias = {{5, kInf}};
        }),
        "sampler option logit_bias is inf for token 5; it must be a finite number, or -infinity to ban the token");
    EXPECT_EQ(message([](O) {}, 0), "sampler: a vocabulary of 0 tokens cannot be");
}

TEST(Sampler, IgnoresTokensOutsideTheVocabulary) {
    SamplerOptions o;
    o.repeat_penalty = 2;
    auto s = Sampler::create(o, 3);
    ASSERT_TRUE(s);
    for (const Token t : {-1, 3, std::numeric_limits<Token>::max(), std::numeric_limits<Token>::min()}) s->accept(t);
    EXPECT_TRUE(s->sample(std::vector<float>{1, 2, 3}));
}

TEST(Sampler, SamplingAllocatesNothing) {
#ifdef QUERN_TEST_SANITIZED
    GTEST_SKIP() << "the sanitizer brings its own operator new";
#endif
    constexpr std::size_t n = 2000;
    std::vector<float> logits(n);
    engine::Random random(1);
    for (float& l : logits) l = static_cast<float>(random.uniform() * 8);
    for (int variant = 0; variant < 4; ++variant) {
        SamplerOptions o;
        o.repeat_penalty = 1.1f;
        o.logit_bias = {{3, 1.0f}};
        o.top_k = variant == 0 ? 40 : 0;
        o.typical_p = variant == 2 ? 0.9f : 1.0f;
        o.penalty_last_n = variant == 1 ? -1 : 64;
        o.temperature = variant == 3 ? 0.0f : 0.8f;
        auto s = Sampler::create(o, n);
        ASSERT_TRUE(s);
        const auto before = test::allocation_count();
        for (int i = 0; i < 300; ++i) s->accept(*s->sample(logits));
        EXPECT_EQ(test::allocation_count(), before) << "variant " << variant;
    }
}

}  // namespace
}  // namespace quern
