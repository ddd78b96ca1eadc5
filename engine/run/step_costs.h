// SPDX-License-Identifier: Apache-2.0
// What steps cost that check guesses at the next tokens, and what guessing has won or lost so far.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

namespace quern::engine {

class StepCosts {
public:
    static constexpr std::uint32_t kMost = 15;   // guesses a step: with the token before them one tile of 16 columns

    /// A step that checked n guesses took so long.
    void ran(std::uint32_t n, double seconds) {
        last_ = seconds;
        total_ += seconds;
        // Slow steps are mostly somebody else's doing, so that they count little.
        double& s = seconds_[n];
        s = s > 0 && seconds > s ? s + 0.1 * (std::min(seconds, 2 * s) - s) : seconds;
        // Fewer tokens take no longer: what was measured while all was slow, and not again since, would be praise for guesses.
        for (std::uint32_t i = 0; i < n; ++i) seconds_[i] = std::min(seconds_[i], seconds);
    }
    /// The last step's guesses gave n tokens beside its own, and took so long to find.
    void won(std::uint32_t n, double seconds = 0) {
        total_ += seconds;
        balance_ += (n + 1) * seconds_[0] - last_ - seconds;
    }
    /// Whether a plain step has been timed; without it nothing can be weighed.
    bool known() const { return seconds_[0] > 0; }
    /// More time has been lost than may be: of all time a share, beside it a few steps, or nothing could ever be tried.
    bool losing() const { return balance_ < -(kMostLost * total_ + kFirstSteps * seconds_[0]); }
    /// Seconds of a step with n guesses; between measured widths on the line between them, outside them with the slope that
    /// small batches have where nothing is known, a tenth of a step for each token.
    double of(std::uint32_t n) const {
        if (seconds_[n] > 0) return seconds_[n];
        std::uint32_t low = n, high = n;
        while (low > 0 && !(seconds_[low] > 0)) --low;
        while (high < kMost && !(seconds_[high] > 0)) ++high;
        if (!(seconds_[high] > 0)) return seconds_[low] + (n - low) * 0.1 * seconds_[0];
        return seconds_[low] + (seconds_[high] - seconds_[low]) * (n - low) / (high - low);
    }

    struct Width { std::uint32_t n = 0; double tokens_per_second = 0; };
    /// The number of guesses, up to `most`, with the most tokens a second, where each is right with probability p and takes
    /// so long to find: n guesses give 1 + p + ... + p^n tokens a step.
    Width best(std::uint32_t most, double p, double seconds_each = 0) const {
        double tokens = 1, power = 1;
        Width best{0, kWorthwhile / of(0)};
        for (std::uint32_t i = 1; i <= most; ++i) {
            power *= p;
            tokens += power;
            const double speed = tokens / (of(i) + i * seconds_each);
            if (speed > best.tokens_per_second) best = {i, speed};
        }
        return best;
    }

private:
    static constexpr double kMostLost = 0.015, kFirstSteps = 1.5;
    static constexpr double kWorthwhile = 1.03;   // a smaller gain than this may be none: the figures are not that good

    std::array<double, kMost + 1> seconds_{};   // of a step with so many guesses; 0: not measured
    double total_ = 0, balance_ = 0;            // seconds: of all steps; won by guessing so far
    double last_ = 0;
};

}  // namespace quern::engine
