// SPDX-License-Identifier: Apache-2.0
// Keeps a batcher at its goals while it runs: what it measured of the last steps in, settings for the next ones out. Pure: it
// knows neither a clock nor a model, so the same observations give the same decisions.
#pragma once

#include <cstdint>
#include <string>

#include "quern/quern.hpp"

namespace quern::engine {

/// Of the steps since the last decision.
struct AdaptObservation {
    double token_seconds = 0;        // 90th percentile between two tokens of a request
    double first_token_seconds = 0;  // mean from submit(); 0: none came
    double tokens_per_second = 0;    // generated
    std::uint64_t memory = 0;        // bytes of KV pages in use
    double sequences = 0;            // mean that got a token in a step
    double prefill = 0;              // mean prompt tokens in such a step
    std::uint32_t waiting = 0;       // requests, now
};

struct AdaptSettings {
    std::uint32_t n_running = 0, n_prefill = 0, n_threads = 0;
    bool operator==(const AdaptSettings&) const = default;
};

struct AdaptBounds {
    AdaptSettings least, most;
};

class Adapter {
public:
    Adapter(const AdaptOptions& goals, const AdaptBounds& bounds, const AdaptSettings& start);

    struct Decision {
        AdaptSettings settings;
        std::string why;   // "" if nothing changed
    };
    /// What to run with from now on. A goal must be missed, or have room, twice in a row before anything changes; what was
    /// tried and missed a goal is not tried again for a while that doubles each time.
    const Decision& update(const AdaptObservation& seen);

private:
    /// A value that missed the latency goal.
    struct Bad {
        std::uint32_t value = 0, wait = kFirstWait, left = 0;   // left: updates until it may be tried again; 0: now
        void set(std::uint32_t v);
        void pass() { if (left > 0) --left; }
        /// The next value above `now`, or `now`; far: nothing is known to be near.
        std::uint32_t raise(std::uint32_t now, std::uint32_t most, bool far) const;
    };
    static constexpr std::uint32_t kFirstWait = 32, kLongestWait = 1024;

    void shrink_for_memory(const AdaptObservation& seen);
    void speed_up(const AdaptObservation& seen);
    void use_room(const AdaptObservation& seen);
    bool try_threads(const AdaptObservation& seen);
    void judge_threads(const AdaptObservation& seen);
    void change(std::uint32_t AdaptSettings::*what, std::uint32_t to, const std::string& why);
    std::string late(const AdaptObservation& seen) const;

    AdaptOptions goals_;
    AdaptBounds bounds_;
    Decision now_;
    Bad running_, prefill_;
    std::uint32_t late_ = 0, early_ = 0;            // updates in a row
    std::uint32_t threads_before_ = 0;              // while another count is tried
    double seconds_before_ = 0;
    std::uint32_t threads_wait_ = 0, threads_pause_ = kFirstWait;
    bool conflict_said_ = false;
};

}  // namespace quern::engine
