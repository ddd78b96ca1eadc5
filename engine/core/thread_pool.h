// SPDX-License-Identifier: Apache-2.0
// The engine's own threads. They draw the units of one step after the other; a step is over when its units are done, not
// when every thread has come by: a thread that the system took off its CPU between two units holds nobody up.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "quern/result.hpp"

namespace quern::engine {

/// Work in steps 0, 1, 2, ... of independent units. Everything written in a step is visible in the next.
struct Job {
    static constexpr std::uint32_t kEnd = UINT32_MAX;
    static constexpr std::uint32_t kMaxUnits = (1u << 20) - 2048;
    /// Units of `step` (0 .. kMaxUnits), or kEnd after the last step. Called once a step, in order, between steps.
    std::uint32_t (*units)(void* context, std::uint32_t step);
    /// Does one unit. `thread` < size(), for scratch: no two units run at once on the same thread.
    void (*unit)(void* context, std::uint32_t step, std::uint32_t unit, std::uint32_t thread);
    void* context;
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
    /// Does the whole job on up to n_threads threads (1 .. size()), the caller being thread 0; what they wrote is then
    /// visible to the caller. Not reentrant: one run at a time (callers hold the executor's lock). The job's functions
    /// must not throw. Allocates nothing.
    void run(const Job& job, std::uint32_t n_threads);

private:
    ThreadPool();
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace quern::engine
