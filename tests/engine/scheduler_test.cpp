// SPDX-License-Identifier: Apache-2.0
// What a step of a batch runs, decided without a model: order, shares, pages, preemption; and random loads to the end.
#include "engine/run/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <random>
#include <string>

namespace quern::engine {
namespace {

/// Stands for batcher and page pool: every request ends when it has n_end tokens.
struct Bench {
    struct Entry : SchedulerEntry {
        std::uint32_t n_end = 0, held = 0;  // held: pages really taken
        bool over = false;
        std::string name;
    };

    Bench(SchedulerLimits l, std::uint32_t pages) : limits(l), scheduler(l), free(pages), total(pages) {}

    Entry& add(std::uint32_t n_prompt, std::uint32_t n_end, const char* client = "", int priority = 0) {
        Entry& e = entries.emplace_back();
        e.order = entries.size();
        e.priority = priority;
        e.n_tokens = n_prompt;
        e.n_end = n_end;
        e.name = client;
        scheduler.add(e, client);
        return e;
    }

    /// Plans and runs a step. Gives how many tokens it had.
    std::uint32_t step() {
        const Scheduler::Step& plan = scheduler.plan(free);
        for (SchedulerEntry* p : plan.preempted) give_back(*static_cast<Entry*>(p));
        stuck = plan.stuck;
        slices = plan.slices;
        preempted = plan.preempted;
        std::uint32_t n = 0;
        for (const Scheduler::Slice& s : slices) {
            auto& e = *static_cast<Entry*>(s.entry);
            const std::uint32_t need = scheduler.pages_for(e.n_run + s.n);
            EXPECT_LE(need, e.n_pages);
            const std::uint32_t more = e.n_pages - e.held;
            EXPECT_LE(more, free) << "planned with more pages than there are";
            free -= more;
            e.held += more;
            n += s.n;
        }
        EXPECT_LE(n, limits.n_batch);
        scheduler.ran();
        for (const Scheduler::Slice& s : slices) {
            auto& e = *static_cast<Entry*>(s.entry);
            if (e.n_run < e.n_tokens) continue;
            if (++e.n_tokens > e.n_end) end(e);
        }
        return n;
    }
    void end(Entry& e) {
        give_back(e);
        scheduler.remove(e);
        e.over = true;
    }
    void give_back(Entry& e) {
        free += e.held;
        e.held = 0;
    }
    std::uint32_t slice_of(const SchedulerEntry& e) const {
        for (const auto& s : slices)
            if (s.entry == &e) return s.n;
        return 0;
    }

    SchedulerLimits limits;
    Scheduler scheduler;
    std::deque<Entry> entries;
    std::vector<Scheduler::Slice> slices;
    std::vector<SchedulerEntry*> preempted;
    SchedulerEntry* stuck = nullptr;
    std::uint32_t free, total;
};

TEST(Scheduler, DecodeFirstThenPromptsUpToTheirShare) {
    Bench b({.n_batch = 64, .max_running = 8, .max_prefill = 16}, 100);
    auto& a = b.add(10, 50);
    EXPECT_EQ(b.step(), 10u);
    auto& c = b.add(100, 110);
    EXPECT_EQ(b.step(), 17u);
    EXPECT_EQ(b.slices[0].entry, &a);
    EXPECT_EQ(b.slice_of(c), 16u) << "bounded beside a decoding one";
    b.end(a);
    EXPECT_EQ(b.step(), 64u) << "a whole step where nobody decodes";
    auto& d = b.add(8, 20);
    EXPECT_EQ(b.step(), 28u) << "the end of one prompt and the next, as nobody decodes yet";
    EXPECT_EQ(b.slice_of(c), 20u);
    EXPECT_EQ(b.slice_of(d), 8u);
    EXPECT_EQ(b.step(), 2u);
}

TEST(Scheduler, PrioritiesThenArrival) {
    Bench b({.n_batch = 8, .max_running = 1}, 100);
    auto& a = b.add(4, 4);
    auto& c = b.add(4, 4);
    auto& d = b.add(4, 4, "", 1);
    for (auto* e : {&d, &a, &c}) {
        b.step();
        EXPECT_TRUE(e->over) << e->order;
    }
    EXPECT_EQ(b.step(), 0u);
    EXPECT_TRUE(b.scheduler.idle());
}

TEST(Scheduler, ClientsGetEqualShares) {
    Bench b({.n_batch = 32, .max_running = 2}, 1000);
    for (int i = 0; i < 30; ++i) b.add(20, 30, "busy");
    b.step();
    for (int i = 0; i < 10; ++i) b.add(20, 30, "modest");
    // Who comes late is owed nothing for the time before, and from then on gets every other place.
    std::size_t busy = 0, modest = 0;
    while (modest < 10) {
        ASSERT_GT(b.step(), 0u);
        busy = modest = 0;
        for (const auto& e : b.entries) (e.name == "busy" ? busy : modest) += e.over;
        EXPECT_LE(busy, modest + 4);
        EXPECT_LE(modest, busy + 4);
    }
    EXPECT_LT(busy, 15u);
}

TEST(Scheduler, NobodySavesUpShares) {
    Bench b({.n_batch = 32, .max_running = 1}, 1000);
    auto& first = b.add(1, 1, "rests");
    b.step();
    ASSERT_TRUE(first.over);
    for (int i = 0; i < 40; ++i) b.add(30, 30, "works");
    for (int i = 0; i < 20; ++i) b.step();
    for (int i = 0; i < 10; ++i) b.add(30, 30, "rests");
    std::size_t before = 0, after = 0;
    for (const auto& e : b.entries) before += e.over && e.name == "works";
    for (int i = 0; i < 10; ++i) b.step();
    for (const auto& e : b.entries) after += e.over && e.name == "works";
    EXPECT_GE(after - before, 4u) << "it used its idle time to push others aside";
}

TEST(Scheduler, ForgetsClients) {
    Bench b({.n_batch = 32, .max_running = 2}, 1000);
    for (int i = 0; i < 50; ++i) b.add(4, 4 + i % 3, std::to_string(i).c_str());
    while (!b.scheduler.idle()) ASSERT_GT(b.step(), 0u);
    EXPECT_EQ(b.scheduler.n_clients(), 0u);
}

TEST(Scheduler, WaitsForPages) {
    Bench b({.n_batch = 512}, 10);
    auto& a = b.add(100, 110);  // 7 pages
    auto& c = b.add(40, 41);    // 3, and one in reserve
    auto& d = b.add(1, 1);      // would fit, but lets nobody wait for ever
    b.step();
    EXPECT_EQ(b.slice_of(a), 100u);
    EXPECT_FALSE(c.running || d.running);
    while (!a.over) b.step();
    b.step();
    EXPECT_TRUE(c.running && d.over);
}

TEST(Scheduler, SaysWhatCanNeverRun) {
    Bench b({.n_batch = 512}, 4);
    auto& a = b.add(65, 65);
    EXPECT_EQ(b.step(), 0u);
    EXPECT_EQ(b.stuck, &a);
    b.end(a);
    auto& c = b.add(64, 64);
    EXPECT_EQ(b.step(), 64u) << "all pages, nothing in reserve";
    EXPECT_TRUE(c.over && b.stuck == nullptr);
}

TEST(Scheduler, PreemptsTheYoungestOfTheLowestPriority) {
    Bench b({.n_batch = 512}, 11);
    auto& low = b.add(30, 200, "", -1);
    auto& a = b.add(30, 96);
    auto& c = b.add(30, 96);
    b.step();
    ASSERT_TRUE(low.running && a.running && c.running);
    std::vector<SchedulerEntry*> order;
    while (!c.over) {
        ASSERT_GT(b.step(), 0u);
        order.insert(order.end(), b.preempted.begin(), b.preempted.end());
    }
    ASSERT_GE(order.size(), 2u);
    EXPECT_EQ(order[0], &low);
    EXPECT_EQ(order[1], &c) << "of two alike the younger";
    EXPECT_TRUE(std::find(order.begin(), order.end(), &a) == order.end());
}

TEST(Scheduler, HigherPriorityTakesAPlace) {
    Bench b({.n_batch = 64, .max_running = 2}, 100);
    auto& a = b.add(8, 100);
    auto& c = b.add(8, 100);
    b.step();
    auto& equal = b.add(8, 8, "served less");
    b.step();
    EXPECT_FALSE(equal.running) << "equals wait";
    auto& high = b.add(8, 8, "", 3);
    b.step();
    EXPECT_TRUE(high.over);
    EXPECT_TRUE(a.running && !c.running);
    b.step();
    EXPECT_TRUE(c.running && !equal.running) << "who was preempted comes back first";
    auto& wide = b.add(100 * 16, 100 * 16, "", 3);
    b.step();
    EXPECT_TRUE(wide.running && !a.running && !c.running) << "and pages";
}

TEST(Scheduler, RandomLoadsEndAndKeepTheRules) {
    for (std::uint32_t seed = 1; seed <= 200; ++seed) {
        std::mt19937 random(seed);
        const auto pick = [&](std::uint32_t a, std::uint32_t b) {
            return a + static_cast<std::uint32_t>(random() % (b - a + 1));
        };
        const SchedulerLimits limits{pick(1, 40), pick(1, 12), pick(1, 40), 16};
        const std::uint32_t pages = pick(4, 20);
        Bench b(limits, pages);
        std::uint32_t left = 40, steps = 0;
        while (left > 0 || !b.scheduler.idle()) {
            ASSERT_LT(++steps, 100000u) << "seed " << seed;
            for (std::uint32_t i = pick(0, 3); i > 0 && left > 0; --i, --left) {
                const std::uint32_t prompt = pick(1, pages * 16), end = pick(prompt, pages * 16);
                b.add(prompt, end, std::to_string(pick(0, 3)).c_str(), static_cast<int>(pick(0, 2)));
            }
            if (pick(0, 30) == 0 && !b.scheduler.running().empty())
                b.end(*static_cast<Bench::Entry*>(b.scheduler.running()[pick(0, 1000) % b.scheduler.running().size()]));
            std::vector<SchedulerEntry*> decoding;
            for (SchedulerEntry* e : b.scheduler.running())
                if (e->n_tokens - e->n_run == 1) decoding.push_back(e);
            const std::uint32_t n = b.step();
            ASSERT_EQ(b.stuck, nullptr) << "seed " << seed;
            ASSERT_TRUE(n > 0 || b.scheduler.idle() || !b.preempted.empty()) << "seed " << seed;
            ASSERT_LE(b.scheduler.running().size(), std::min(limits.max_running, limits.n_batch));
            const auto was = [](const auto& list, const SchedulerEntry* e) {
                return std::find(list.begin(), list.end(), e) != list.end();
            };
            std::uint32_t n_decode = 0;
            for (SchedulerEntry* e : decoding) {
                ASSERT_TRUE(b.slice_of(*e) >= 1 || was(b.preempted, e))
                    << "seed " << seed << ": a sequence missed a step";
                n_decode += b.slice_of(*e) == 1 && !was(b.preempted, e);
            }
            ASSERT_TRUE(n_decode == 0 || n - n_decode <= limits.max_prefill) << "seed " << seed;
            std::uint32_t held = 0;
            for (const auto& e : b.entries) held += e.held;
            ASSERT_EQ(held + b.free, pages) << "seed " << seed;
        }
        EXPECT_EQ(b.free, pages);
        EXPECT_EQ(b.scheduler.n_clients(), 0u);
    }
}

TEST(Scheduler, WhatTheCacheHasIsNotRunAndChargedToNobody) {
    std::uint32_t has = 40;
    Scheduler scheduler({.n_batch = 16}, [&](SchedulerEntry& e) { return std::max(has, e.n_run); });
    SchedulerEntry e;
    e.n_tokens = 100;
    scheduler.add(e, "a");
    EXPECT_EQ(scheduler.plan(100).slices.at(0).n, 16u);
    EXPECT_EQ(e.n_run, 40u);
    scheduler.ran();
    has = 96;  // somebody else read on
    EXPECT_EQ(scheduler.plan(100).slices.at(0).n, 4u);
    EXPECT_EQ(e.n_run, 96u);
    EXPECT_EQ(e.client->second.served, 16u + 4);
}

TEST(Scheduler, TwoTiersBoundLongChunksAndSequences) {
    const KvTiers tiers = KvTiers::make(32, 1024);
    Scheduler scheduler({.n_batch = 4096, .page_tokens = KvTiers::kBatch, .tiers = tiers});
    std::deque<SchedulerEntry> entries(7);
    for (std::uint32_t i = 0; i < entries.size(); ++i) {
        entries[i].order = i;
        entries[i].n_tokens = 500;
        scheduler.add(entries[i], "");
    }
    const auto& slices = scheduler.plan(1000, 6).slices;
    ASSERT_EQ(slices.size(), 6u) << "exact tiers for six";
    for (std::uint32_t i = 0; i < 6; ++i) {
        EXPECT_EQ(slices[i].n, i < KvTiers::kStagedChunks ? 500 : tiers.ring_tokens) << i;
        EXPECT_EQ(entries[i].n_pages, tiers.quantized(500) / KvTiers::kBatch);
    }
    // One has less room than that: what is not run is not charged.
    const std::uint64_t served = entries[0].client->second.served;
    scheduler.shorten(1, 60);
    EXPECT_EQ(entries[0].client->second.served, served - 440);
    scheduler.ran();
    EXPECT_EQ(entries[0].n_run, 500u);
    EXPECT_EQ(entries[1].n_run, 60u);
}

}  // namespace
}  // namespace quern::engine
