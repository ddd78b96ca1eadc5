// SPDX-License-Identifier: Apache-2.0
#include "engine/core/thread_pool.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>

#include <cstdint>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/engine/counting_new.h"

namespace quern::engine {
namespace {

/// Calls f(worker) through the pool's plain function pointer.
template <class F>
void run(ThreadPool& pool, std::uint32_t n_threads, F f) {
    pool.run([](void* context, Worker w) { (*static_cast<F*>(context))(w); }, &f, n_threads);
}

std::unique_ptr<ThreadPool> make_pool(std::uint32_t n) {
    auto pool = ThreadPool::create(n);
    EXPECT_TRUE(pool) << pool.error().message;
    return std::move(*pool);
}

class ThreadPoolSizes : public testing::TestWithParam<std::uint32_t> {};
INSTANTIATE_TEST_SUITE_P(, ThreadPoolSizes, testing::Values(1, 2, 3, 8));

TEST_P(ThreadPoolSizes, EveryWorkerRunsOnceAndItsWritesAreSeen) {
    auto pool = make_pool(GetParam());
    ASSERT_EQ(pool->size(), GetParam());
    for (int round = 0; round < 200; ++round) {
        for (std::uint32_t n = 1; n <= GetParam(); ++n) {
            std::vector<int> seen(GetParam(), 0);  // plain integers: the thread sanitizer checks the ordering
            run(*pool, n, [&](Worker w) {
                EXPECT_EQ(w.n_threads, n);
                ++seen.at(w.index);
            });
            for (std::uint32_t i = 0; i < GetParam(); ++i) ASSERT_EQ(seen[i], i < n ? 1 : 0);
        }
    }
}

TEST_P(ThreadPoolSizes, BarrierSeparatesSteps) {
    // Each step reads what every thread wrote in the step before: a prefix of the Fibonacci-like recurrence
    // next[i] = sum of all + i. A thread that runs ahead or behind changes the numbers.
    const std::uint32_t n = GetParam();
    auto pool = make_pool(n);
    constexpr int steps = 500;
    std::vector<std::uint64_t> a(n), b(n), expect(n), next(n);
    for (std::uint32_t i = 0; i < n; ++i) a[i] = expect[i] = i;
    for (int s = 0; s < steps; ++s) {
        std::uint64_t sum = 0;
        for (std::uint64_t v : expect) sum += v;
        for (std::uint32_t i = 0; i < n; ++i) next[i] = sum + i;
        expect = next;
    }
    run(*pool, n, [&](Worker w) {
        for (int s = 0; s < steps; ++s) {
            auto& from = s % 2 == 0 ? a : b;
            auto& to = s % 2 == 0 ? b : a;
            std::uint64_t sum = 0;
            for (std::uint64_t v : from) sum += v;
            to[w.index] = sum + w.index;
            pool->barrier(w);
        }
    });
    EXPECT_EQ(steps % 2 == 0 ? a : b, expect);
}

TEST_P(ThreadPoolSizes, CountersHandOutEachNumberOnce) {
    const std::uint32_t n = GetParam();
    auto pool = make_pool(n);
    constexpr std::uint32_t items = 1000;
    constexpr int steps = 20;
    std::vector<std::uint32_t> taken(items, 0);
    run(*pool, n, [&](Worker w) {
        for (std::uint32_t s = 0; s < steps; ++s) {
            if (w.index == 0) pool->reset_counter((s + 1) % 2);
            for (std::uint32_t i = pool->next(s % 2); i < items; i = pool->next(s % 2)) ++taken[i];
            pool->barrier(w);
        }
    });
    for (std::uint32_t t : taken) ASSERT_EQ(t, steps);
    run(*pool, 1, [&](Worker) {
        EXPECT_EQ(pool->next(0), 0u) << "a run starts with both counters at 0";
        EXPECT_EQ(pool->next(1), 0u);
    });
}

TEST(ThreadPool, OneThreadRunsOnTheCaller) {
    auto pool = make_pool(4);
    std::thread::id id;
    run(*pool, 1, [&](Worker) { id = std::this_thread::get_id(); });
    EXPECT_EQ(id, std::this_thread::get_id());
}

TEST(ThreadPool, WakesThreadsThatSleep) {
    // "S" in the state field of every thread but this one: the workers sleep in the kernel, they do not spin.
    auto pool = make_pool(3);
    for (int round = 0; round < 3; ++round) {
        std::vector<std::string> tids(3);
        run(*pool, 3, [&](Worker w) { tids[w.index] = std::to_string(::gettid()); });
        for (int i = 1; i < 3; ++i) {
            char state = '?';
            while (state != 'S') {  // ends when the worker sleeps; a worker that spins for ever makes this test hang
                std::ifstream stat("/proc/self/task/" + tids[static_cast<std::size_t>(i)] + "/stat");
                std::string line;
                ASSERT_TRUE(std::getline(stat, line));
                state = line.at(line.rfind(')') + 2);
                std::this_thread::yield();
            }
        }
    }
}

TEST(ThreadPool, SlowThreadIsWaitedForInTheBarrier) {
    // The others pass their spin limit and go to sleep in the barrier while worker 0 computes.
    auto pool = make_pool(3);
    std::uint64_t value = 0;
    std::vector<std::uint64_t> seen(3);
    run(*pool, 3, [&](Worker w) {
        if (w.index == 0) {
            volatile std::uint64_t x = 1;
            for (int i = 0; i < 5'000'000; ++i) x = x * 6364136223846793005u + 1;
            value = x | 1;
        }
        pool->barrier(w);
        seen[w.index] = value;
    });
    EXPECT_NE(value, 0u);
    EXPECT_EQ(seen, std::vector<std::uint64_t>(3, value));
}

TEST(ThreadPool, TwoPoolsAtOnce) {
    std::vector<std::uint64_t> sums(2);
    auto use = [&](std::size_t which) {
        auto pool = make_pool(2);
        for (int round = 0; round < 100; ++round) {
            std::uint64_t part[2] = {};
            run(*pool, 2, [&](Worker w) {
                part[w.index] = w.index + 1;
                pool->barrier(w);
                if (w.index == 1) sums[which] += part[0] + part[1];
            });
        }
    };
    std::thread a(use, 0), b(use, 1);
    a.join(), b.join();
    EXPECT_EQ(sums, (std::vector<std::uint64_t>{300, 300}));
}

TEST(ThreadPool, PinsWorkersButNotTheCaller) {
    cpu_set_t before;
    ASSERT_EQ(::sched_getaffinity(0, sizeof before, &before), 0);
    int cpu = 0;
    while (!CPU_ISSET(cpu, &before)) ++cpu;
    const std::vector<int> cpus(2, cpu);
    auto pool = ThreadPool::create(2, cpus);
    ASSERT_TRUE(pool) << pool.error().message;
    cpu_set_t sets[2];
    run(**pool, 2, [&](Worker w) { EXPECT_EQ(::sched_getaffinity(0, sizeof sets[0], &sets[w.index]), 0); });
    EXPECT_TRUE(CPU_EQUAL(&sets[0], &before));
    EXPECT_EQ(CPU_COUNT(&sets[1]), 1);
    EXPECT_TRUE(CPU_ISSET(cpu, &sets[1]));
}

TEST(ThreadPool, RefusesBadArguments) {
    EXPECT_EQ(ThreadPool::create(0).error().message, "thread count 0 is not in 1 to 1024");
    EXPECT_EQ(ThreadPool::create(5000).error().message, "thread count 5000 is not in 1 to 1024");
    const std::vector<int> one{0}, none{0, -1}, far{0, CPU_SETSIZE - 1};
    EXPECT_EQ(ThreadPool::create(2, one).error().message, "1 CPUs given for 2 threads; give one each");
    EXPECT_EQ(ThreadPool::create(2, none).error().message, "CPU -1 is not in 0 to 1023");
    const auto refused = ThreadPool::create(2, far);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::io);
    EXPECT_NE(refused.error().message.find("cannot pin a thread to CPU 1023"), std::string::npos);
}

#ifndef QUERN_TEST_SANITIZED
TEST(ThreadPool, ThreadThatCannotStartIsAnError) {
    // No address space for the stacks: threads of 8 MB fail after the first few.
    std::ifstream statm("/proc/self/statm");
    rlim_t pages = 0;
    ASSERT_TRUE(statm >> pages);
    rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_AS, &before), 0);
    rlimit low = before;
    low.rlim_cur = pages * 4096 + (64u << 20);
    ASSERT_EQ(::setrlimit(RLIMIT_AS, &low), 0);
    const auto pool = ThreadPool::create(512);
    ASSERT_EQ(::setrlimit(RLIMIT_AS, &before), 0);
    ASSERT_FALSE(pool);
    EXPECT_EQ(pool.error().code, Errc::io);
    EXPECT_EQ(pool.error().message.substr(0, 20), "cannot start thread ");
}

TEST(ThreadPool, RunAndBarrierAllocateNothing) {
    auto pool = make_pool(2);
    const std::uint64_t before = test::allocation_count();
    for (int round = 0; round < 100; ++round) {
        run(*pool, 2, [&](Worker w) {
            pool->barrier(w);
            pool->next(0);
        });
    }
    EXPECT_EQ(test::allocation_count(), before);
}
#endif

}  // namespace
}  // namespace quern::engine
