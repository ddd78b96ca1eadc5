// SPDX-License-Identifier: Apache-2.0
// What it costs to hand over from one step to the next, without the work in it.
#include <atomic>

#include "bench/kernels/context.h"

namespace quern::bench {
namespace {

/// Steps of one unit a thread. In a step, each waits until all have come, so that none can do the others' units: the time
/// of a step is a full meeting of the threads, which is at least what the engine pays between two steps.
struct Meeting {
    static constexpr std::uint32_t kSteps = 1000;
    std::uint32_t n_threads;
    alignas(128) std::atomic<std::uint32_t> arrived{0};

    static std::uint32_t units(void* self, std::uint32_t step) {
        return step == kSteps ? engine::Job::kEnd : static_cast<Meeting*>(self)->n_threads;
    }
    static void unit(void* self, std::uint32_t step, std::uint32_t, std::uint32_t) {
        auto& m = *static_cast<Meeting*>(self);
        m.arrived.fetch_add(1, std::memory_order_acq_rel);
        while (m.arrived.load(std::memory_order_acquire) < (step + 1) * m.n_threads) {}
    }
};

/// Steps of so many units of nothing: what drawing and counting a unit costs.
struct Draws {
    static constexpr std::uint32_t kSteps = 1000;
    std::uint32_t n_units;
    static std::uint32_t units(void* self, std::uint32_t step) {
        return step == kSteps ? engine::Job::kEnd : static_cast<Draws*>(self)->n_units;
    }
    static void unit(void*, std::uint32_t, std::uint32_t, std::uint32_t) {}
};

template <class Job>
void add_steps(Context& context, const std::string& name, unsigned threads, std::uint32_t n) {
    add(name, [&context, threads, n](benchmark::State& state) {
        double seconds = 0;
        for (auto _ : state) {
            Job job{n};
            engine::Stopwatch clock;
            context.pool->run({Job::units, Job::unit, &job}, threads);
            seconds += clock.seconds();
        }
        state.counters["us_per_step"] = seconds * 1e6 / Job::kSteps / static_cast<double>(state.iterations());
    });
}

}  // namespace

void register_threads(Context& context) {
    for (const unsigned threads : context.threads) {
        const std::string suffix = "/threads:" + std::to_string(threads);
        add_steps<Meeting>(context, "step/meet" + suffix, threads, threads);
        for (const std::uint32_t units : {1u, 16u})
            add_steps<Draws>(context, "step/units:" + std::to_string(units) + suffix, threads, units);
    }
}

}  // namespace quern::bench
