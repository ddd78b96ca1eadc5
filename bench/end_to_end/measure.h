// SPDX-License-Identifier: Apache-2.0
// Runs tests on a loaded model.
#pragma once

#include <string>

#include "bench/end_to_end/bench.h"
#include "tools/common/process.h"

namespace quern::bench {

struct Repeat {
    int repetitions = 5;
    bool warmup = true;
};

std::string now_utc();
/// Tokens that the KV cache must hold for a test.
std::uint32_t n_ctx(const Test& test);
/// Fills in test, test_time, samples_ns, checksum and, with a probe, roofline. With streams, also runs the first one
/// alone: other tokens there than in the batch are Errc::internal.
Result<Row> measure(const Model& model, const Test& test, const Repeat& repeat, RooflineProbe* probe,
                    tools::Progress& progress);

}  // namespace quern::bench
