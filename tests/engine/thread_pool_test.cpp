// SPDX-License-Identifier: Apache-2.0
#include "engine/core/thread_pool.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>

#include <atomic>
#include <cstdint>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/engine/counting_new.h"

namespace quern::engine {
namespace {

/// Runs a job of `steps` steps of `units` units; f(step, unit, thread).
template <class F>
void run(ThreadPool& pool, std::uint32_t n_threads, std::uint32_t steps, std::uint32_t units, F f) {
    struct Context {
        F* f;
        std::uint32_t steps, units;
    } c{&f, steps, units};
    pool.run({[](void* p, std::uint32_t step) {
                  auto& x = *static_cast<Context*>(p);
                  return step == x.steps ? Job::kEnd : x.units;
              },
              [](void* p, std::uint32_t step, std::uint32_t unit, std::uint32_t thread) {
                  (*static_cast<Context*>(p)->f)(step, unit, thread);
              },
              &c},
             n_threads);
}

std::unique_ptr<ThreadPool> make_pool(std::uint32_t n) {
    auto pool = ThreadPool::create(n);
    EXPECT_TRUE(pool) << pool.error().message;
    return std::move(*pool);
}

class ThreadPoolSizes : public testing::TestWithParam<std::uint32_t> {};
INSTANTIATE_TEST_SUITE_P(, ThreadPoolSizes, testing::Values(1, 2, 3, 8));

TEST_P(ThreadPoolSizes, EveryUnitRunsOnceAndItsWritesAreSeen) {
    auto pool = make_pool(GetParam());
    ASSERT_EQ(pool->size(), GetParam());
    for (std::uint32_t round = 0; round < 200; ++round) {
        for (std::uint32_t n = 1; n <= GetParam(); ++n) {
            std::vector<int> seen(round, 0);  // plain integers: the thread sanitizer checks the ordering
            run(*pool, n, 1, round, [&](std::uint32_t, std::uint32_t unit, std::uint32_t thread) {
                EXPECT_LT(thread, pool->size());
                ++seen.at(unit);
            });
            for (const int x : seen) ASSERT_EQ(x, 1);
        }
    }
}

TEST_P(ThreadPoolSizes, AStepSeesAllOfTheStepBefore) {
    // Each unit reads what every unit wrote in the step before; a step that begins early changes the numbers.
    const std::uint32_t n = GetParam() + 3;
    auto pool = make_pool(GetParam());
    constexpr std::uint32_t steps = 500;
    std::vector<std::uint64_t> a(n), b(n), expect(n), next(n);
    for (std::uint32_t i = 0; i < n; ++i) a[i] = expect[i] = i;
    for (std::uint32_t s = 0; s < steps; ++s) {
        std::uint64_t sum = 0;
        for (std::uint64_t v : expect) sum += v;
        for (std::uint32_t i = 0; i < n; ++i) next[i] = sum + i;
        expect = next;
    }
    run(*pool, GetParam(), steps, n, [&](std::uint32_t s, std::uint32_t unit, std::uint32_t) {
        auto& from = s % 2 == 0 ? a : b;
        std::uint64_t sum = 0;
        for (std::uint64_t v : from) sum += v;
        (s % 2 == 0 ? b : a)[unit] = sum + unit;
    });
    EXPECT_EQ(steps % 2 == 0 ? a : b, expect);
}

TEST_P(ThreadPoolSizes, StepsMayBeEmptyAndJobsToo) {
    auto pool = make_pool(GetParam());
    struct Context {
        std::uint32_t order = 0;
        std::vector<std::uint32_t> asked;
    } c;
    const Job job{[](void* p, std::uint32_t step) -> std::uint32_t {
                      auto& x = *static_cast<Context*>(p);
                      x.asked.push_back(step);
                      return step == 5 ? Job::kEnd : step % 2;  // units in steps 1 and 3 only
                  },
                  [](void* p, std::uint32_t step, std::uint32_t, std::uint32_t) {
                      static_cast<Context*>(p)->order = static_cast<Context*>(p)->order * 10 + step;
                  },
                  &c};
    pool->run(job, GetParam());
    EXPECT_EQ(c.order, 13u);
    EXPECT_EQ(c.asked, (std::vector<std::uint32_t>{0, 1, 2, 3, 4, 5}));
    run(*pool, GetParam(), 0, 7, [](std::uint32_t, std::uint32_t, std::uint32_t) { FAIL(); });
}

/// Threads on two nodes and, further on, on three, as they might be found on any machine.
ThreadPlaces nodes(std::vector<std::uint32_t> queue, std::size_t n) {
    ThreadPlaces p;
    p.queue = std::move(queue);
    for (std::size_t i = 0; i < n; ++i) p.nodes.push_back(static_cast<int>(i));
    p.cpus.resize(p.queue.size());
    p.cpus.back() = {CPU_SETSIZE - 1};  // refused by the system, and that is no error
    return p;
}

std::unique_ptr<ThreadPool> make_pool(const ThreadPlaces& places) {
    auto pool = ThreadPool::create(static_cast<std::uint32_t>(places.queue.size()), places);
    EXPECT_TRUE(pool) << pool.error().message;
    return std::move(*pool);
}

TEST(ThreadPoolNodes, EveryUnitRunsOnceAndStepsFollow) {
    for (const auto& pool : {make_pool(nodes({0, 1}, 2)), make_pool(nodes({0, 0, 1, 1, 2}, 3)), make_pool(nodes({1, 1}, 2))}) {
        for (std::uint32_t units = 0; units < 40; ++units) {  // fewer than queues, too: some are then empty
            std::vector<int> seen(units, 0);
            constexpr std::uint32_t steps = 50;
            run(*pool, pool->size(), steps, units, [&](std::uint32_t step, std::uint32_t unit, std::uint32_t) {
                // What the step before wrote, in another unit.
                EXPECT_EQ(seen.at(unit) % 50, static_cast<int>(step) % 50);
                ++seen.at(unit);
            });
            for (const int n : seen) ASSERT_EQ(n, static_cast<int>(steps));
        }
    }
}

TEST(ThreadPoolNodes, OwnQueueFirstThenTheOthers) {
    auto pool = make_pool(nodes({0, 1}, 2));
    ASSERT_EQ(pool->n_queues(), 2u);
    int n_in_order = 0;
    for (int round = 0; round < 50; ++round) {
        std::vector<std::uint32_t> drawn[2];
        std::atomic<int> inside{0};
        run(*pool, 2, 1, 9, [&](std::uint32_t, std::uint32_t unit, std::uint32_t thread) {
            drawn[thread].push_back(unit);
            ++inside;
            while (inside < 2) std::this_thread::yield();  // both take part
        });
        ASSERT_EQ(drawn[0].size() + drawn[1].size(), 9u);
        bool in_order = true;
        for (const std::uint32_t thread : {0u, 1u}) {
            const std::uint32_t first = even_part(9, thread, 2), end = even_part(9, thread + 1, 2);
            bool own = true;  // once it has gone over to another queue its own is empty
            in_order = in_order && drawn[thread].front() == first;
            for (const std::uint32_t u : drawn[thread]) {
                in_order = in_order && (own || u < first || u >= end);
                own = u >= first && u < end;
            }
        }
        n_in_order += in_order;
    }
    // Queues open one after the other: a thread that looks in between takes a unit elsewhere. That is rare.
    EXPECT_GT(n_in_order, 25);
    std::vector<std::uint32_t> alone;
    run(*pool, 1, 1, 5, [&](std::uint32_t, std::uint32_t unit, std::uint32_t) { alone.push_back(unit); });
    EXPECT_EQ(alone.size(), 5u) << "a single thread does the units of all nodes";
}

TEST(ThreadPool, OneThreadRunsOnTheCaller) {
    auto pool = make_pool(4);
    run(*pool, 1, 1, 20, [&, id = std::this_thread::get_id()](std::uint32_t, std::uint32_t, std::uint32_t thread) {
        EXPECT_EQ(id, std::this_thread::get_id());
        EXPECT_EQ(thread, 0u);
    });
}

TEST(ThreadPool, AThreadThatSleepsIsWokenAndOneThatLagsHoldsNobodyUp) {
    // Unit 0 waits for the other two threads to do the rest, so all three must take part whatever the system does
    // first.
    auto pool = make_pool(3);
    for (int round = 0; round < 3; ++round) {
        std::vector<std::string> tids(3);
        std::atomic<int> inside{0};
        run(*pool, 3, 1, 3, [&](std::uint32_t, std::uint32_t unit, std::uint32_t) {
            tids[unit] = std::to_string(::gettid());
            ++inside;
            while (inside < 3) std::this_thread::yield();  // a worker that is not woken makes this test hang
        });
        for (const std::string& tid : tids) {
            if (tid == std::to_string(::gettid())) continue;
            char state = '?';
            while (state != 'S') {  // ends when the worker sleeps; a worker that spins for ever makes this test hang
                std::ifstream stat("/proc/self/task/" + tid + "/stat");
                std::string line;
                ASSERT_TRUE(std::getline(stat, line));
                state = line.at(line.rfind(')') + 2);
                std::this_thread::yield();
            }
        }
    }
}

TEST(ThreadPool, FewerThreadsThanThePoolHas) {
    auto pool = make_pool(4);
    for (const std::uint32_t n : {4u, 2u, 1u, 3u}) {
        std::vector<std::atomic<int>> by_thread(4);
        run(*pool, n, 50, 30, [&](std::uint32_t, std::uint32_t, std::uint32_t thread) { ++by_thread[thread]; });
        int sum = 0;
        for (const auto& x : by_thread) sum += x;
        EXPECT_EQ(sum, 1500);
    }
}

TEST(ThreadPool, TwoPoolsAtOnce) {
    std::vector<std::uint64_t> sums(2);
    auto use = [&](std::size_t which) {
        auto pool = make_pool(2);
        for (int round = 0; round < 100; ++round) {
            std::uint64_t part[2] = {};
            run(*pool, 2, 2, 2, [&](std::uint32_t step, std::uint32_t unit, std::uint32_t) {
                if (step == 0)
                    part[unit] = unit + 1;
                else if (unit == 1)
                    sums[which] += part[0] + part[1];
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
    std::atomic<int> inside{0};
    run(**pool, 2, 1, 2, [&](std::uint32_t, std::uint32_t, std::uint32_t thread) {
        EXPECT_EQ(::sched_getaffinity(0, sizeof sets[0], &sets[thread]), 0);
        ++inside;
        while (inside < 2) std::this_thread::yield();  // so that each thread does one
    });
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

TEST(ThreadPool, RunningAllocatesNothing) {
    auto pool = make_pool(2);
    const std::uint64_t before = test::allocation_count();
    for (int round = 0; round < 100; ++round) {
        run(*pool, 2, 3, 5, [](std::uint32_t, std::uint32_t, std::uint32_t) {});
    }
    EXPECT_EQ(test::allocation_count(), before);
}
#endif

}  // namespace
}  // namespace quern::engine
