// SPDX-License-Identifier: Apache-2.0
// One test of bench and how its result is shown. Names are llama-bench's, so that scripts for it read ours.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "quern/quern.hpp"

namespace quern::bench {

/// What is timed: reading n_prompt tokens, then writing n_gen one by one, with n_depth tokens already in the context.
/// With n_streams, so many sequences of n_depth prompt tokens write n_gen tokens each, a token each in every step.
struct Test {
    std::uint32_t n_prompt = 0, n_gen = 0, n_depth = 0, n_streams = 0;
    int n_threads = 0;

    std::uint32_t n_timed() const { return n_streams ? n_streams * n_gen : n_prompt + n_gen; }  ///< tokens

    std::string name() const;  ///< "pp512", "tg128 @ d4096", "pp512+tg128", "8 x tg64 @ d128"
};

struct Row {
    Test test;
    std::string test_time;                   ///< UTC, ISO 8601
    std::vector<std::uint64_t> samples_ns;   ///< one a repetition
    std::uint64_t checksum = 0;              ///< of the first stream's tokens, the same as when it runs alone

    double avg_ns() const;
    double stddev_ns() const;                ///< of the sample, n - 1
    std::vector<double> samples_ts() const;  ///< tokens per second
    double avg_ts() const;
    double stddev_ts() const;
};

/// What does not change from row to row.
struct Setup {
    std::string model_path, kv_type;
    std::uint32_t n_batch = 0;
    ModelInfo info;
};

std::string to_json(const Setup& setup, const std::vector<Row>& rows);
std::string to_csv(const Setup& setup, const std::vector<Row>& rows);
std::string to_markdown(const Setup& setup, const std::vector<Row>& rows);

}  // namespace quern::bench
