// SPDX-License-Identifier: Apache-2.0
// The engine's own threads. All of them walk the same list of steps together; between two steps they meet at a barrier
// that spins briefly and then sleeps.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "quern/result.hpp"

namespace quern::engine {

/// What a thread is told: its index in 0 .. n_threads - 1, and how many take part.
struct Worker {
    std::uint32_t index, n_threads;
};

class ThreadPool {
public:
    static constexpr std::uint32_t kMaxThreads = 1024;

    /// n_threads (1 .. kMaxThreads) in all, the calling thread included. cpus: one logical CPU per thread to pin to;
    /// empty: no pinning. The calling thread is never pinned, so cpus[0] is not used. Fails with Errc::io where the
    /// system refuses a thread or a CPU.
    static Result<std::unique_ptr<ThreadPool>> create(std::uint32_t n_threads, std::span<const int> cpus = {});
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    std::uint32_t size() const;
    /// Runs fn(context, worker) on n_threads threads (1 .. size()), the caller being worker 0, and returns when all are
    /// done; what they wrote is then visible to the caller. Both counters start at 0. The other threads are left
    /// asleep. fn must not throw. Not reentrant: one run at a time (callers hold the executor's lock). Allocates
    /// nothing.
    void run(void (*fn)(void* context, Worker worker), void* context, std::uint32_t n_threads);
    /// Inside run: returns when every participating thread has called it. What was written before is visible after.
    void barrier(Worker worker);
    /// Inside run: hands out 0, 1, 2, ... once each; call reset_counter in a step that no thread uses it in.
    /// Two counters alternate so that a step can reset the next one's.
    std::uint32_t next(std::uint32_t counter);  // counter 0 or 1
    void reset_counter(std::uint32_t counter);

private:
    ThreadPool();
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace quern::engine
