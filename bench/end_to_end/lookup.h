// SPDX-License-Identifier: Apache-2.0
// bench --preset lookup: tokens a second with prompt lookup over those without, where the text repeats and where it
// does not.
#pragma once

#include <vector>

#include "bench/end_to_end/bench.h"
#include "bench/end_to_end/measure.h"

namespace quern::bench {

std::uint32_t lookup_n_ctx();

/// A source file and the beginning of an edited copy of it, which the model goes on with greedily; and a story that it
/// tells at temperature 1, three times from another seed. Plain and with lookup in turns, medians of the speeds of the
/// answers and of the ratios of the turns. Other tokens with lookup than without are an error.
Result<std::vector<Line>> lookup(const Model& model, const Setup& setup, Threads threads, const Repeat& repeat,
                                 tools::Progress& progress);

}  // namespace quern::bench
