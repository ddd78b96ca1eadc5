// SPDX-License-Identifier: Apache-2.0
// The real-time tuner against a simulated load: it comes to its goals, stays there, keeps its bounds, and follows the load.
#include "engine/tune/adapt.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

namespace quern::engine {
namespace {

/// A batcher whose step takes so long: deterministic, but for a wobble of 2% that repeats.
struct Load {
    double base = 0.020, a_sequence = 0.001, a_prompt_token = 0.0002;   // seconds, with one thread
    std::uint32_t cores = 4;
    std::uint32_t demand = 100;       // sequences that would run
    double prompts = 40;              // tokens of prompts that arrive with each step, at most
    std::uint64_t bytes_a_sequence = 1 << 20;
    int i = 0;

    double step(double sequences, double prefill, std::uint32_t threads) const {
        const double speed = threads <= cores ? threads : cores * 0.5;   // more threads than cores get in each other's way
        return (base + a_sequence * sequences + a_prompt_token * prefill) / speed;
    }
    AdaptObservation observe(const AdaptSettings& s) {
        const double n = std::min(demand, s.n_running), prefill = std::min<double>(prompts, s.n_prefill);
        const double wobble = 1 + 0.02 * ((i++ % 5) - 2) / 2, seconds = step(n, prefill, s.n_threads) * wobble;
        return {seconds, 0.5 * prompts / std::max(1.0, prefill), n / seconds, static_cast<std::uint64_t>(n) * bytes_a_sequence, n, prefill, demand > s.n_running ? demand - s.n_running : 0};
    }
};

constexpr AdaptBounds kBounds{{1, 16, 1}, {64, 512, 8}};

struct History {
    std::vector<AdaptSettings> settings;
    std::vector<std::string> log;
    int last_change = 0;
    AdaptObservation seen;
};

History run(Adapter& adapter, Load& load, AdaptSettings start, int n) {
    History out;
    AdaptSettings now = start;
    for (int i = 0; i < n; ++i) {
        out.seen = load.observe(now);
        const Adapter::Decision& d = adapter.update(out.seen);
        EXPECT_TRUE(d.settings == now || !d.why.empty()) << "a change without a word";
        for (const auto what : {&AdaptSettings::n_running, &AdaptSettings::n_prefill, &AdaptSettings::n_threads}) {
            EXPECT_GE(d.settings.*what, kBounds.least.*what);
            EXPECT_LE(d.settings.*what, kBounds.most.*what);
        }
        if (!(d.settings == now)) out.last_change = i + 1;
        if (!d.why.empty()) out.log.push_back(d.why);
        now = d.settings;
        out.settings.push_back(now);
    }
    return out;
}

AdaptOptions goals(double token, double throughput = 0) {
    AdaptOptions o;
    o.token_seconds = token;
    o.tokens_per_second = throughput;
    return o;
}

std::string all(const History& r) {
    std::string out;
    for (const std::string& line : r.log) out += line + "\n";
    return out;
}

TEST(Adapter, ComesToTheLatencyGoalAndStaysThere) {
    for (const double goal : {0.012, 0.020, 0.030})
        for (const AdaptSettings start : {AdaptSettings{64, 512, 4}, AdaptSettings{1, 16, 4}, AdaptSettings{20, 100, 4}}) {
            Load load;
            Adapter adapter(goals(goal), kBounds, start);
            const History r = run(adapter, load, start, 60);
            EXPECT_LT(r.seen.token_seconds, 1.1 * goal) << all(r);
            // 32 sequences of 4.8 ms base and prompts at most: more is possible only with more room.
            EXPECT_TRUE(r.seen.token_seconds > 0.75 * goal || r.settings.back().n_running == 64) << goal << ": no room is left unused\n" << all(r);
            EXPECT_LT(r.last_change, 45) << all(r);
        }
}

TEST(Adapter, DoesNotSwing) {
    Load load;
    load.a_sequence = 0.02;   // a sequence more or less is far more than the band is wide
    Adapter adapter(goals(0.030), kBounds, {8, 64, 4});
    run(adapter, load, {8, 64, 4}, 100);
    const AdaptSettings settled = adapter.update(load.observe({1, 64, 4})).settings;
    const History r = run(adapter, load, settled, 1000);
    // What failed is tried again after 32, 64, 128, ... updates: at most five times, each up and down again.
    EXPECT_LE(r.log.size(), 14u) << all(r);
    std::set<std::uint32_t> values;
    for (const AdaptSettings& s : r.settings) values.insert(s.n_running);
    EXPECT_LE(values.size(), 4u);
}

TEST(Adapter, FollowsTheLoad) {
    Load load;
    Adapter adapter(goals(0.020), kBounds, {32, 64, 4});
    const History before = run(adapter, load, {32, 64, 4}, 80);
    const std::uint32_t quiet = before.settings.back().n_running;
    load.base *= 2;   // another program
    load.a_sequence *= 2;
    load.a_prompt_token *= 2;
    const History busy = run(adapter, load, before.settings.back(), 80);
    EXPECT_LT(busy.seen.token_seconds, 1.1 * 1.02 * 0.020) << "within the wobble of the band's edge\n" << all(busy);
    EXPECT_LT(busy.settings.back().n_running, quiet);
    EXPECT_NE(all(busy).find("adapt: n_"), std::string::npos);
    load = Load();
    const History after = run(adapter, load, busy.settings.back(), 300);
    EXPECT_GE(after.settings.back().n_running, quiet * 3 / 4) << all(after);
    EXPECT_LT(after.seen.token_seconds, 1.1 * 0.020);
    // Nothing to do is no reason to change anything.
    load.demand = 2;
    load.prompts = 0;
    EXPECT_TRUE(run(adapter, load, after.settings.back(), 100).log.empty());
}

TEST(Adapter, LongPromptsGiveWayBeforeSequencesDo) {
    Load load;
    load.prompts = 400;
    Adapter adapter(goals(0.025), kBounds, {24, 512, 4});
    const History r = run(adapter, load, {24, 512, 4}, 60);
    EXPECT_LT(r.settings.back().n_prefill, 400u);
    EXPECT_GE(r.settings.back().n_running, 24u) << all(r);
    EXPECT_NE(r.log.front().find("adapt: n_prefill 512 -> "), std::string::npos) << all(r);
    EXPECT_NE(r.log.front().find("a token every 30.69 ms (90th percentile), the goal is 25 ms; beside it 400 tokens"), std::string::npos) << r.log.front();
}

TEST(Adapter, FirstTokensThatAreLateGetLargerChunks) {
    Load load;
    load.prompts = 200;
    load.demand = 8;
    AdaptOptions o = goals(0.050);
    o.first_token_seconds = 1;
    Adapter adapter(o, kBounds, {8, 16, 4});
    const History r = run(adapter, load, {8, 16, 4}, 60);
    EXPECT_LE(r.seen.first_token_seconds, 1.1) << all(r);
    EXPECT_LT(r.seen.token_seconds, 0.055);
    EXPECT_GT(r.settings.back().n_prefill, 80u);
}

TEST(Adapter, KeepsMemoryBelowItsThreshold) {
    Load load;
    AdaptOptions o;
    o.memory = 20 << 20;
    Adapter adapter(o, kBounds, {64, 64, 4});
    const History r = run(adapter, load, {64, 64, 4}, 200);
    EXPECT_LE(r.seen.memory, o.memory) << all(r);
    EXPECT_GE(r.settings.back().n_running, 10u) << all(r);
    EXPECT_NE(r.log.front().find("n_running 64 -> 48: the KV pages in use take 67108864 bytes, the threshold is 20971520"), std::string::npos) << r.log.front();
}

TEST(Adapter, ThreadsAreTriedWhenNothingElseHelps) {
    Load load;
    load.demand = 1;
    load.prompts = 0;
    Adapter up(goals(0.007), kBounds, {1, 16, 2});
    const History more = run(up, load, {1, 16, 2}, 40);
    EXPECT_EQ(more.settings.back().n_threads, 3u) << "21 ms by 3\n" << all(more);
    // More threads than cores: it is seen to be worse, and taken back; then seldom tried.
    load.base = 0.2;
    Adapter over(goals(0.007), kBounds, {1, 16, 4});
    const History worse = run(over, load, {1, 16, 4}, 500);
    EXPECT_EQ(worse.settings.back().n_threads, 4u) << all(worse);
    EXPECT_LE(worse.log.size(), 10u);
    EXPECT_NE(all(worse).find("n_threads 5 -> 4"), std::string::npos) << all(worse);
}

TEST(Adapter, GoalsThatContradictEachOtherAreSaidOnce) {
    Load load;
    load.cores = 1;
    AdaptBounds one = kBounds;
    one.most.n_threads = 1;
    Adapter adapter(goals(0.030, 800), one, {40, 16, 1});
    const History r = run(adapter, load, {40, 16, 1}, 100);
    EXPECT_EQ(r.settings.back().n_running, 40u) << "throughput is kept, latency is not: " << all(r);
    EXPECT_NE(all(r).find("the goals contradict each other"), std::string::npos);
    EXPECT_EQ(r.log.size(), 1u) << all(r);
}

TEST(Adapter, StartsWithinItsBounds) {
    Adapter adapter(goals(1), kBounds, {1000, 1, 0});
    EXPECT_EQ(adapter.update({.token_seconds = 0.95}).settings, (AdaptSettings{64, 16, 1}));
}

}  // namespace
}  // namespace quern::engine
