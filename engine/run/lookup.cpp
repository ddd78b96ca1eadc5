// SPDX-License-Identifier: Apache-2.0
#include "engine/run/lookup.h"

#include <algorithm>

namespace quern::engine {
namespace {

constexpr std::uint32_t kShortest = 2;     // tokens that must be alike: one alone is mostly chance
constexpr double kMemory = 0.95;           // what older tries still count after one more
// Of all time, what may be lost by guesses that fail; beside it a few steps, or nothing could ever be tried.
constexpr double kMostLost = 0.015, kFirstSteps = 1.5;

}  // namespace

Lookup::Lookup(std::uint32_t most) : most_(std::min(most, kMost)) { guesses_.reserve(kMost); }

/// Before anything is known, a guess after m like tokens is right in m / (m + 3) of the cases; that counts as two tries.
double Lookup::hit_rate(std::uint32_t match) const {
    const Rate& r = rates_[match];
    return (r.hits + 2.0 * match / (match + 3)) / (r.tries + 2);
}

/// Seconds of a step; between measured widths on the line between them, outside them with the slope that small batches have
/// where nothing is known, a tenth of a step for each token.
double Lookup::cost(std::uint32_t n) const {
    if (seconds_[n] > 0) return seconds_[n];
    std::uint32_t low = n, high = n;
    while (low > 0 && !(seconds_[low] > 0)) --low;
    while (high < kMost && !(seconds_[high] > 0)) ++high;
    if (!(seconds_[high] > 0)) return seconds_[low] + (n - low) * 0.1 * seconds_[0];
    return seconds_[low] + (seconds_[high] - seconds_[low]) * (n - low) / (high - low);
}

/// The number of guesses with the most tokens a second: with hit rate p, n guesses give 1 + p + ... + p^n tokens a step.
std::uint32_t Lookup::width(std::uint32_t match) const {
    if (!(seconds_[0] > 0) || balance_ < -(kMostLost * total_ + kFirstSteps * seconds_[0])) return 0;
    const double p = hit_rate(match);
    double tokens = 1, power = 1, best = 1 / cost(0);
    std::uint32_t n = 0;
    for (std::uint32_t i = 1; i <= most_; ++i) {
        power *= p;
        tokens += power;
        if (tokens > best * cost(i)) best = tokens / cost(i), n = i;
    }
    return n;
}

std::span<const std::int32_t> Lookup::guess(std::span<const std::int32_t> text, std::uint32_t room) {
    guesses_.clear();
    match_ = 0;
    if (text.size() <= kShortest || room == 0 || most_ == 0) return guesses_;
    const std::int32_t* const last = text.data() + text.size() - 1;
    const std::int32_t* found = nullptr;
    for (const std::int32_t* p = last; p-- > text.data();) {   // of equally long matches the newest
        if (*p != *last) continue;
        const auto most = static_cast<std::uint32_t>(std::min<std::ptrdiff_t>(p - text.data() + 1, kLongest));
        std::uint32_t n = 1;
        while (n < most && p[-static_cast<std::ptrdiff_t>(n)] == last[-static_cast<std::ptrdiff_t>(n)]) ++n;
        if (n <= match_) continue;
        match_ = n;
        found = p;
        if (n == kLongest) break;
    }
    if (match_ < kShortest) return guesses_;
    // Where the earlier place runs into the end of the text, it goes on with the guesses themselves.
    const std::uint32_t n = std::min(room, width(match_)), known = static_cast<std::uint32_t>(last - found);
    for (std::uint32_t i = 0; i < n; ++i) guesses_.push_back(i < known ? found[1 + i] : guesses_[i - known]);
    return guesses_;
}

void Lookup::ran(double seconds) {
    last_ = seconds;
    total_ += seconds;
    n_guessed_ += guesses_.size();
    // Slow steps are mostly somebody else's doing, so that they count little.
    double& s = seconds_[guesses_.size()];
    s = s > 0 && seconds > s ? s + 0.1 * (std::min(seconds, 2 * s) - s) : seconds;
}

void Lookup::accepted(std::uint32_t n) {
    if (guesses_.empty()) return;
    n_accepted_ += n;
    balance_ += (n + 1) * seconds_[0] - last_;
    Rate& r = rates_[match_];
    for (std::uint32_t i = 0; i < std::min<std::size_t>(n + 1, guesses_.size()); ++i) {
        r.tries = r.tries * kMemory + 1;
        r.hits = r.hits * kMemory + (i < n ? 1 : 0);
    }
}

}  // namespace quern::engine
