// SPDX-License-Identifier: Apache-2.0
#include "engine/run/recorder.h"

#include <algorithm>
#include <cmath>

namespace quern::engine {

std::size_t Histogram::cell(double value) {
    // Exponent and the first four bits of the mantissa; a positive double's bits ascend with it.
    constexpr std::uint64_t kFirst = std::uint64_t{1023 + kFirstOctave} * kPerOctave;
    if (!(value > 0)) return 0;
    const std::uint64_t bits = std::bit_cast<std::uint64_t>(value) >> 48;
    return bits < kFirst ? 0 : std::min<std::size_t>(bits - kFirst, kCells - 1);
}

double Histogram::middle(std::size_t cell) {
    const double first = std::ldexp(1.0, kFirstOctave + static_cast<int>(cell / kPerOctave));
    return first * (1 + (static_cast<double>(cell % kPerOctave) + 0.5) / kPerOctave);
}

void Histogram::add(double value, std::uint64_t times) {
    if (times == 0) return;
    cells_[cell(value)] += times;
    min_ = n_ == 0 ? value : std::min(min_, value);
    max_ = n_ == 0 ? value : std::max(max_, value);
    n_ += times;
    total_ += value * static_cast<double>(times);
}

/// Nearest rank.
double Histogram::percentile(double p) const {
    const auto rank = static_cast<std::uint64_t>(std::ceil(p * static_cast<double>(n_)));
    std::uint64_t below = 0;
    for (std::size_t i = 0; i + 1 < kCells; ++i) {   // the last cell has no upper end
        below += cells_[i];
        if (below >= rank) return std::clamp(middle(i), min_, max_);
    }
    return max_;
}

Distribution Histogram::get() const {
    if (n_ == 0) return {};
    return {n_, total_, total_ / static_cast<double>(n_), min_, max_, percentile(0.5), percentile(0.9), percentile(0.95), percentile(0.99)};
}

std::uint64_t Histogram::count_above(double threshold) const {
    std::uint64_t n = 0;
    for (std::size_t i = cell(threshold) + 1; i < kCells; ++i) n += cells_[i];
    return n;
}

void Recorder::count(const RecordedCounts& more) {
    std::lock_guard lock(mutex_);
    counts_.n_prompt += more.n_prompt;
    counts_.n_reused += more.n_reused;
    counts_.n_generated += more.n_generated;
    counts_.n_guessed += more.n_guessed;
    counts_.n_accepted += more.n_accepted;
    counts_.busy_seconds += more.busy_seconds;
}

Distribution Recorder::get(Stage stage) const {
    std::lock_guard lock(mutex_);
    return stages_[static_cast<std::size_t>(stage)].get();
}

void Recorder::fill(Metrics& out) const {
    constexpr double kSpike = 4;   // medians
    const auto ratio = [](double a, double b) { return b > 0 ? a / b : 0; };
    std::lock_guard lock(mutex_);
    const auto stage = [&](Stage s) -> const Histogram& { return stages_[static_cast<std::size_t>(s)]; };
    out.queue = stage(Stage::queue).get();
    out.prefill = stage(Stage::prefill).get();
    out.first_token = stage(Stage::first_token).get();
    out.token = stage(Stage::token).get();
    out.decode = stage(Stage::decode).get();
    out.sampling = stage(Stage::sampling).get();
    out.detokenize = stage(Stage::detokenize).get();
    out.guess = stage(Stage::guess).get();
    out.overhead = stage(Stage::overhead).get();
    out.request = stage(Stage::request).get();
    out.n_prompt = counts_.n_prompt;
    out.n_reused = counts_.n_reused;
    out.n_generated = counts_.n_generated;
    out.n_guessed = counts_.n_guessed;
    out.n_accepted = counts_.n_accepted;
    out.n_spikes = stage(Stage::decode).count_above(kSpike * out.decode.p50);
    out.prompt_tokens_per_second = ratio(static_cast<double>(out.n_prompt - out.n_reused), out.prefill.total);
    out.tokens_per_second = ratio(static_cast<double>(out.n_generated), counts_.busy_seconds);
    out.kv_hit_rate = ratio(static_cast<double>(out.n_reused), static_cast<double>(out.n_prompt));
    out.acceptance = ratio(static_cast<double>(out.n_accepted), static_cast<double>(out.n_guessed));
}

}  // namespace quern::engine
