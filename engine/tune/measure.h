// SPDX-License-Identifier: Apache-2.0
// The real costs for tune_search(): stretches of the loaded model, run over pages that are given back afterwards.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include "engine/core/clock.h"
#include "engine/run/executor.h"
#include "engine/tune/search.h"

namespace quern::engine {

class TuneMeter {
public:
    /// seconds: what all measurements together may take; one that is expected to end later is refused. Fails with
    /// Errc::context_full where less than the largest batch (or 1024 tokens) fits into the free pages.
    static Result<std::unique_ptr<TuneMeter>> create(Executor& executor, const TuneCandidates& candidates, double seconds);
    ~TuneMeter();
    TuneMeter(const TuneMeter&) = delete;
    TuneMeter& operator=(const TuneMeter&) = delete;

    /// One token after n_tokens others, through the whole model: the weights come from memory as they do in use.
    std::optional<double> decode(std::uint32_t threads);
    /// n_tokens tokens in steps of `batch`, through as many layers as the time allows, other ones in each step: in use,
    /// too, a step finds no weights of the one before in a cache.
    std::optional<double> prefill(std::uint32_t threads, std::uint32_t batch);
    TuneCosts costs();
    std::uint32_t n_prefill() const { return n_prefill_; }   // tokens in a measurement of prefill

private:
    TuneMeter(Executor& executor, double seconds) : executor_(executor), budget_(seconds) {}
    /// Seconds that a measurement takes with `threads`, judged by those before: at worst time grows as threads shrink.
    struct Forecast {
        double thread_seconds = 0;
        double operator()(std::uint32_t threads) const { return thread_seconds / threads; }
        void learn(std::uint32_t threads, double seconds);
    };
    bool fits(double seconds) const { return clock_.seconds() + seconds <= budget_; }
    bool run_decode(std::uint32_t threads);
    bool run_prefill(std::uint32_t threads, std::uint32_t batch);
    void choose_sizes(std::uint32_t threads_decode, std::uint32_t threads_prefill);

    Executor& executor_;
    double budget_;
    Stopwatch clock_;
    std::vector<std::uint32_t> pages_;
    ExactRing ring_;
    std::vector<std::int32_t> tokens_;
    std::vector<float> logits_;
    std::uint32_t n_decode_ = 1;              // tokens in a measurement of decode
    std::uint32_t n_prefill_ = 1, n_layers_ = 1;
    Forecast decode_forecast_, prefill_forecast_;
};

/// Measures and searches. Changes nothing in the executor.
Result<TuneChoice> tune(Executor& executor, const TuneCandidates& candidates, double seconds);

}  // namespace quern::engine
