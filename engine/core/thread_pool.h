// SPDX-License-Identifier: Apache-2.0
// The engine's own threads. They draw the units of one step after the other; a step is over when its units are done, not
// when every thread has come by: a thread that the system took off its CPU between two units holds nobody up.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/core/topology.h"
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

/// Where part `i` of `parts` begins when n things are cut evenly; i = parts gives n.
constexpr std::uint32_t even_part(std::uint32_t n, std::uint32_t i, std::uint32_t parts) {
    return static_cast<std::uint32_t>(std::uint64_t{n} * i / parts);
}

class ThreadPool {
public:
    static constexpr std::uint32_t kMaxThreads = 1024;

    /// n_threads (1 .. kMaxThreads) in all, the calling thread included. cpus: one logical CPU per thread to pin to;
    /// empty: no pinning. The calling thread is never pinned, so cpus[0] is not used. Fails with Errc::io where the
    /// system refuses a thread or a CPU.
    static Result<std::unique_ptr<ThreadPool>> create(std::uint32_t n_threads, std::span<const int> cpus = {});
    /// Threads run where `places` asks, as far as the system lets them. A step's units are cut into one queue a node:
    /// even_part(units, queue, n_queues()) is the queue's first; threads empty their own queue, then the others.
    static Result<std::unique_ptr<ThreadPool>> create(std::uint32_t n_threads, const ThreadPlaces& places);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    std::uint32_t size() const;
    std::uint32_t n_queues() const;
    /// Does the whole job on up to n_threads threads (1 .. size()), the caller being thread 0; what they wrote is then
    /// visible to the caller. Not reentrant: one run at a time (callers hold the executor's lock). The job's functions
    /// must not throw. Allocates nothing.
    void run(const Job& job, std::uint32_t n_threads);

private:
    ThreadPool();
    Status start(std::uint32_t n_threads, const std::vector<std::vector<int>>& cpus, bool must);
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace quern::engine
