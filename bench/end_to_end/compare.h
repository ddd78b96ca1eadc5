// SPDX-License-Identifier: Apache-2.0
// bench --compare: two files of results beside each other.
#pragma once

#include <string>
#include <vector>

#include "bench/end_to_end/bench.h"

namespace quern::bench {

/// "faster": every sample of b is above every sample of a, and the means differ by more than three standard errors of
/// their difference. "slower": the reverse. "within noise" else; "too few runs" where a side has fewer than three.
std::string verdict(const std::vector<double>& a, const std::vector<double>& b);

/// Pairs the speed tests of two result files (JSON or JSON lines, of bench or of llama-bench) by the model's file name,
/// test, threads and cache types; n_batch only decides among several that agree in those. A line a test; tests without
/// partner last. Errc::invalid_argument names the file and the place of what cannot be read.
Result<std::vector<Line>> compare(const std::string& path_a, const std::string& path_b);

}  // namespace quern::bench
