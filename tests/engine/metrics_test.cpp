// SPDX-License-Identifier: Apache-2.0
// Durations in bounded memory, what a session measures of itself, and what binds.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "engine/plan/cost.h"
#include "engine/run/recorder.h"
#include "engine/sample/chain.h"
#include "quern/quern.hpp"
#include "tests/support/models.h"

namespace quern {
namespace {

using engine::Histogram;
using engine::Recorder;
using engine::Stage;

TEST(Histogram, PercentilesAreRightToTheWidthOfACell) {
    engine::Random random(1);
    Histogram h;
    std::vector<double> all;
    double total = 0;
    for (int i = 0; i < 20000; ++i) {
        all.push_back(std::exp(-16 + 20 * random.uniform()));   // 0.1 us to 55 s
        h.add(all.back());
        total += all.back();
    }
    std::sort(all.begin(), all.end());
    const Distribution d = h.get();
    EXPECT_EQ(d.count, all.size());
    EXPECT_EQ(d.min, all.front());
    EXPECT_EQ(d.max, all.back());
    EXPECT_DOUBLE_EQ(d.total, total);
    EXPECT_DOUBLE_EQ(d.mean, total / 20000);
    const double p[] = {0.5, 0.9, 0.95, 0.99}, got[] = {d.p50, d.p90, d.p95, d.p99};
    for (int i = 0; i < 4; ++i) {
        const double want = all[static_cast<std::size_t>(std::ceil(p[i] * 20000)) - 1];
        EXPECT_NEAR(got[i] / want, 1, 1.0 / 32) << p[i] << ": half a cell of the widest, 1/16 of its lower end";
    }
    for (const double threshold : {1e-5, 1e-2, 10.0}) {
        const auto above = [&](double t) { return static_cast<std::uint64_t>(all.end() - std::upper_bound(all.begin(), all.end(), t)); };
        EXPECT_LE(h.count_above(threshold), above(threshold));
        EXPECT_GE(h.count_above(threshold), above(threshold * 17 / 16));
    }
}

TEST(Histogram, OutOfRange) {
    Histogram h;
    EXPECT_EQ(h.get().count, 0u);
    EXPECT_EQ(h.get().p99, 0);
    h.add(5, 0);
    EXPECT_EQ(h.get().count, 0u);
    for (const double v : {0.0, -1.0, 1e-12, 1e9}) h.add(v);
    const Distribution d = h.get();
    EXPECT_EQ(d.count, 4u);
    EXPECT_EQ(d.min, -1);
    EXPECT_EQ(d.max, 1e9);
    EXPECT_EQ(d.p99, 1e9) << "not above the largest cell's values, but no less than is known";
}

TEST(Recorder, ThreadsAddAndRead) {
    Recorder r;
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t)
        threads.emplace_back([&] {
            for (int i = 0; i < 1000; ++i) {
                r.add(Stage::decode, 1e-3);
                r.count({.n_generated = 1});
            }
        });
    Metrics m;
    do r.fill(m);
    while (m.n_generated < 3000);
    for (auto& t : threads) t.join();
    r.fill(m);
    EXPECT_EQ(m.decode.count, 3000u);
    EXPECT_NEAR(m.decode.total, 3, 1e-9);
}

TEST(Recorder, SpikesAreLongerThanFourMedians) {
    Recorder r;
    for (int i = 0; i < 100; ++i) r.add(Stage::decode, 0.010);
    for (const double s : {0.035, 0.045, 0.2}) r.add(Stage::decode, s);
    Metrics m;
    r.fill(m);
    EXPECT_EQ(m.n_spikes, 2u);
}

TEST(Session, MeasuresItself) {
    auto m = Model::load((test::tiny_dir() / "llama-q4_0.gguf").string(), {.n_threads = 2, .n_ctx = 256});
    ASSERT_TRUE(m.ok());
    auto s = m->new_session();
    const Metrics none = s->metrics();
    EXPECT_EQ(none.bottleneck().kind, BottleneckKind::unknown);
    const std::vector<Token> prompt(40, 7);
    GenerateOptions o{.sampler = {.temperature = 0}, .max_tokens = 20, .ignore_end_of_generation = true};
    std::uint64_t seen = 0;
    o.on_text = [&](std::string_view) {
        seen = s->metrics().n_generated;   // while it runs
        return true;
    };
    ASSERT_TRUE(m->tokenize("some text").ok());
    ASSERT_TRUE(s->generate(prompt, o).ok());
    EXPECT_GT(seen, 0u);
    ASSERT_TRUE(s->use_draft(*m, {.n_tokens = 3}).ok());
    ASSERT_TRUE(s->truncate(0).ok() && s->generate(prompt, o).ok());
    const Metrics x = s->metrics();
    EXPECT_EQ(x.tokenize.count, 1u);
    EXPECT_EQ(x.prefill.count, 2u);
    EXPECT_EQ(x.request.count, 2u);
    EXPECT_EQ(x.first_token.count, 2u);
    EXPECT_EQ(x.n_prompt, 80u);
    EXPECT_EQ(x.n_reused, 39u) << "the second prompt but for its last token";
    EXPECT_DOUBLE_EQ(x.kv_hit_rate, 39.0 / 80);
    EXPECT_EQ(x.n_generated, 40u);
    EXPECT_EQ(x.sampling.count, 40u);
    EXPECT_EQ(x.detokenize.count, 40u);
    EXPECT_EQ(x.overhead.count, 40u);
    EXPECT_EQ(x.token.count, 38u);
    EXPECT_EQ(x.decode.count, 19u + 5u) << "a step a token but the first; then four tokens a step";
    EXPECT_EQ(x.guess.count, 5u);
    EXPECT_EQ(x.n_accepted, x.n_guessed);
    EXPECT_EQ(x.acceptance, 1);
    EXPECT_LE(x.decode.p50, x.decode.p99);
    EXPECT_LE(x.decode.total + x.overhead.total, x.request.total);
    EXPECT_EQ(x.kv.pages_total, 16u);
    EXPECT_EQ(x.kv.pages_used * x.kv.page_bytes, m->memory_report().kv_used);
    EXPECT_GE(x.kv.pages_used, 4u);
    EXPECT_EQ(x.kv_exact.pages_total, 0u);
    EXPECT_EQ(x.model_bytes, m->memory_report().total);
    EXPECT_EQ(x.draft_bytes, 0u) << "the model is its own draft";
    auto other = Model::load((test::tiny_dir() / "llama-q5_k.gguf").string(), {.n_ctx = 64});
    ASSERT_TRUE(s->use_draft(*other).ok());
    EXPECT_EQ(s->metrics().draft_bytes, other->memory_report().total);
    EXPECT_GT(x.memory_peak, 0u);
    EXPECT_LE(x.memory, x.memory_peak);
    EXPECT_EQ(x.n_threads, 2);
    EXPECT_GT(x.thread_utilisation, 0);
    EXPECT_GT(x.decode_runs.bytes, 0);
    EXPECT_GT(x.prefill_runs.operations, x.prefill_runs.n_runs * 40.0);
    const auto json = nlohmann::json::parse(x.to_json());
    EXPECT_EQ(json["decode"]["count"], 24);
    EXPECT_EQ(json["bottleneck"]["kind"], to_string(x.bottleneck().kind));
    for (const char* word : {"decode ", "sampling ", " of 16 pages", "bottleneck "}) EXPECT_NE(x.to_string().find(word), std::string::npos) << word;
}

/// A session that spent most on one stage, and whose model reads 100 MB a step at 20 GB/s, prompts at 400 Gop/s.
Metrics made_up(double tokenize, double prefill, double decode, double sampling) {
    Metrics m;
    const auto d = [](double total) { return Distribution{100, total, total / 100, 0, total / 50, total / 100, total / 100, total / 100, total / 100}; };
    m.tokenize = d(tokenize);
    m.prefill = d(prefill);
    m.decode = d(decode);
    m.sampling = d(sampling);
    m.request = d(tokenize + prefill + decode + sampling);
    m.decode_runs = {200, 200, 1, 1.9, 20e9, 54e9};
    m.prefill_runs = {4, 2000, 1.35, 2.6, 0.4e9, 540e9};
    return m;
}

TEST(Bottleneck, IsTheStageThatTakesMost) {
    EXPECT_EQ(made_up(5, 1, 1, 1).bottleneck().kind, BottleneckKind::tokenization);
    EXPECT_EQ(made_up(0, 1, 1, 3).bottleneck().kind, BottleneckKind::sampling);
    const Bottleneck decode = made_up(0, 1, 3, 1).bottleneck(), prefill = made_up(0, 3, 1, 1).bottleneck();
    EXPECT_EQ(decode.kind, BottleneckKind::memory_bandwidth);
    EXPECT_DOUBLE_EQ(decode.share, 0.6);
    for (const char* words : {"60% of the time", "reads 100 MB (20 GB/s)", "100% of that and its arithmetic 14%"}) EXPECT_NE(decode.why.find(words), std::string::npos) << words << " in: " << decode.why;
    EXPECT_EQ(prefill.kind, BottleneckKind::arithmetic);
    EXPECT_NE(prefill.why.find("400 Gop/s"), std::string::npos) << prefill.why;
    Metrics wide = made_up(0, 1, 3, 1);   // 64 sequences a step: the same bytes, 64 times the arithmetic
    wide.decode_runs.operations *= 64;
    wide.decode_runs.seconds *= 10;
    EXPECT_EQ(wide.bottleneck().kind, BottleneckKind::arithmetic);
    Metrics alone = made_up(0, 0, 3, 1);
    alone.prefill_runs = {};
    EXPECT_EQ(alone.bottleneck().kind, BottleneckKind::memory_bandwidth);
    Metrics waiting = made_up(0, 1, 3, 1);
    waiting.queue = {100, 50, 0.5, 0, 1, 0.5, 1, 1, 1};
    waiting.request = {100, 60, 0.6, 0, 1, 0.6, 1, 1, 1};
    EXPECT_EQ(waiting.bottleneck().kind, BottleneckKind::queueing);
    EXPECT_NE(waiting.bottleneck().why.find("500 ms"), std::string::npos) << waiting.bottleneck().why;
}

}  // namespace
}  // namespace quern
