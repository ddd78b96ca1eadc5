// SPDX-License-Identifier: Apache-2.0
// Keeps durations as they come, in bounded memory and without allocating; any thread may add and read.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <mutex>

#include "quern/metrics.hpp"

namespace quern::engine {

/// Counts by cells of 1/16 octave from 7 ns to 2 hours; what is outside counts in the cell at that end.
class Histogram {
public:
    void add(double value, std::uint64_t times = 1);
    Distribution get() const;
    /// Values above `threshold`, to the width of a cell.
    std::uint64_t count_above(double threshold) const;

private:
    static constexpr int kPerOctave = 16, kFirstOctave = -27, kOctaves = 40;
    static constexpr std::size_t kCells = std::size_t{kOctaves} * kPerOctave;
    static std::size_t cell(double value);
    static double middle(std::size_t cell);
    double percentile(double p) const;

    std::array<std::uint64_t, kCells> cells_{};
    std::uint64_t n_ = 0;
    double total_ = 0, min_ = 0, max_ = 0;
};

enum class Stage : std::uint8_t { tokenize, queue, prefill, first_token, token, decode, sampling, detokenize, guess, overhead, request };
inline constexpr std::size_t kStages = 11;

/// Counts beside the durations.
struct RecordedCounts {
    std::uint64_t n_prompt = 0, n_reused = 0, n_generated = 0, n_guessed = 0, n_accepted = 0;
    double busy_seconds = 0;   // of generating, in all
};

class Recorder {
public:
    void add(Stage stage, double seconds, std::uint64_t times = 1) {
        std::lock_guard lock(mutex_);
        stages_[static_cast<std::size_t>(stage)].add(seconds, times);
    }
    void count(const RecordedCounts& more);
    /// Of one stage; the others of `out` stay.
    Distribution get(Stage stage) const;
    /// All of it.
    void fill(Metrics& out) const;

private:
    mutable std::mutex mutex_;
    std::array<Histogram, kStages> stages_;
    RecordedCounts counts_;
};

}  // namespace quern::engine
