// SPDX-License-Identifier: Apache-2.0
// bench --preset server: many requests through the batcher, against the same ones one after another.
#pragma once

#include <vector>

#include "bench/end_to_end/bench.h"
#include "bench/end_to_end/measure.h"

namespace quern::bench {

/// A context that holds as many of them as the batcher runs at a time.
std::uint32_t server_n_ctx(std::uint32_t n_requests);

/// Seconds for n_requests with random prompts of 64 to 1,024 tokens and greedy answers of 32 to 256, by a session one
/// after another and by the batcher: the best of the repetitions. Other tokens from one than from the other are
/// Errc::internal. goals: of the batcher; if any, also what it changed.
Result<std::vector<Line>> server(const Model& model, const Setup& setup, Threads threads, std::uint32_t n_requests,
                                 const AdaptOptions& goals, const Repeat& repeat, tools::Progress& progress);

}  // namespace quern::bench
