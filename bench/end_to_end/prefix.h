// SPDX-License-Identifier: Apache-2.0
// bench --preset prefix: what a system prompt that others have read costs a request of the batcher.
#pragma once

#include <vector>

#include "bench/end_to_end/bench.h"
#include "bench/end_to_end/measure.h"

namespace quern::bench {

std::uint32_t prefix_n_ctx();
/// A request of the batcher, and the session beside it.
inline constexpr std::uint32_t kPrefixSessions = 2;

/// Medians of the time to the first token of a request to a batcher that others of the same 1,000 tokens went before,
/// with 32, 64 and 128 tokens of its own; of these tokens alone in a session that has read the 1,000; and of a request
/// that begins with 1,000 others. The model keeps prefixes.
Result<std::vector<Line>> prefix(const Model& model, const Setup& setup, Threads threads, const Repeat& repeat,
                                 tools::Progress& progress);

}  // namespace quern::bench
