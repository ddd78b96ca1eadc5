// SPDX-License-Identifier: Apache-2.0
// The two suites of bench --preset that are more than lists of speed tests, and the columns that other suites add.
#pragma once

#include <string>
#include <vector>

#include "bench/end_to_end/bench.h"
#include "bench/end_to_end/measure.h"

namespace quern::bench {

/// Time to the first token and from token to token for five prompts (prompts.h), each going on greedily for n_gen
/// tokens: medians and 95th percentiles, over repetitions and over all tokens of all repetitions.
Result<std::vector<Line>> latency(const Model& model, const Setup& setup, Threads threads, std::uint32_t n_gen,
                                  const Repeat& repeat, tools::Progress& progress);

/// A context that suffices for latency() with any tokenizer: a token a byte.
std::uint32_t latency_n_ctx(std::uint32_t n_gen);

/// Resident memory and KV bytes in use with contexts of so many tokens, ascending, filled one after another.
Result<std::vector<Line>> memory(const Model& model, const Setup& setup, Threads threads,
                                 const std::vector<std::uint32_t>& contexts, tools::Progress& progress);

/// Adds speed over n times the speed of one thread, for rows whose test was run on one thread too.
void add_efficiency(const std::vector<Row>& rows, std::vector<Line>& lines);
/// Adds speed over that of the fastest row with the same test and threads.
void add_relative(const std::vector<Row>& rows, std::vector<Line>& lines);

}  // namespace quern::bench
