// SPDX-License-Identifier: Apache-2.0
// What a test asks of the machine, counted from the model's plan; docs/benchmarks.md defines bytes and operations.
#pragma once

#include <cstdint>
#include <string>

#include "bench/roofline/roofline.h"
#include "engine/run/executor.h"
#include "quern/quern.hpp"

namespace quern::bench {

struct Threads {
    int decode = 0, prefill = 0;
    bool operator==(const Threads&) const = default;
    std::string text() const;  ///< "2", or "1/2" where prefill has another number
};

/// What is timed: reading n_prompt tokens, then writing n_gen one by one, with n_depth tokens already in the context.
/// With n_streams, so many sequences of n_depth prompt tokens write n_gen tokens each, a token each in every step.
struct Test {
    std::uint32_t n_prompt = 0, n_gen = 0, n_depth = 0, n_streams = 0;
    Threads threads;

    std::uint32_t n_timed() const { return n_streams ? n_streams * n_gen : n_prompt + n_gen; }  ///< tokens
    int n_threads_timed() const;  ///< where both kinds of steps are timed, the larger number
    std::string name() const;  ///< "pp512", "tg128 @ d4096", "pp512+tg128", "8 x tg64 @ d128"
};

/// Bytes, operations, and the least time that the roofline allows.
struct Cost : engine::StepWork {
    double least_seconds = 0;  ///< 0 without a roofline
};

/// What tests of a model ask of the machine.
class ModelCost {
public:
    explicit ModelCost(const Model& model);   ///< which must outlive it
    /// Of one repetition, in steps of at most n_batch tokens.
    Cost of_test(const Test& test, std::uint32_t n_batch, const Roofline& roofline) const;
    std::uint64_t tensor_bytes() const { return tensor_bytes_; }  ///< all tensors of the file

private:
    void add_step(Cost& to, const Roofline& roofline, double tokens, double outputs, double kv_bytes) const;

    const engine::Executor* executor_;
    std::uint64_t tensor_bytes_ = 0;
};

}  // namespace quern::bench
