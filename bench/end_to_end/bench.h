// SPDX-License-Identifier: Apache-2.0
// One test of bench, its result, and how results are shown. Names are llama-bench's, so that scripts for it read ours.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "bench/end_to_end/cost.h"
#include "quern/quern.hpp"

namespace quern::bench {

/// What does not change from test to test.
struct Setup {
    std::string model_path, kv_type;
    std::uint32_t n_batch = 0;
    std::uint64_t tensor_bytes = 0;
    ModelInfo info;
    GpuReport gpu;
    std::string backend() const {
        if (gpu.device.empty()) return "CPU " + info.isa;
        return "Vulkan" + (gpu.first_gpu_layer ? ", " + std::to_string(gpu.n_layer - gpu.first_gpu_layer) + " of " + std::to_string(gpu.n_layer) + " layers" : std::string());
    }
};

struct Row {
    Setup setup;
    Test test;
    std::string test_time;                  ///< UTC, ISO 8601
    std::vector<std::uint64_t> samples_ns;  ///< one a repetition
    std::uint64_t checksum = 0;             ///< of the first stream's tokens, the same as when it runs alone
    double device_share = 0;                ///< of the time of all steps: a GPU was at work, by its own clock
    Cost cost;                              ///< of one repetition
    Roofline roofline;  ///< the mean of what was found around the repetitions; threads 0: not measured

    std::vector<double> samples_ts() const;  ///< tokens per second
    double avg_ts() const;
    double gb_s() const;
    double gop_s() const;
    double share() const;  ///< of the roofline: the least time possible over the time taken
};

/// A result as shown: fields for scripts; for people, a row of a table and perhaps a sentence below it.
struct Line {
    nlohmann::ordered_json fields;
    std::vector<std::pair<std::string, std::string>> cells;  ///< heading and contents; the same headings in all lines
    std::string note;
};

/// Columns of the table that only some runs need.
struct Columns {
    bool n_batch = false, kv_type = false;
};

/// Fields that every result about a model has.
nlohmann::ordered_json model_fields(const Setup& setup, Threads threads);
/// "llama Q4_0", as the tables name a model.
std::string model_type(const Setup& setup);
Line to_line(const Row& row, Columns columns);
/// format: md, csv, json or jsonl.
std::string render(const std::string& format, const std::vector<Line>& lines);

}  // namespace quern::bench
