// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>

namespace quern::engine {

/// Counts from its construction, on a clock that never goes back.
class Stopwatch {
public:
    double seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
    void restart() { start_ = Clock::now(); }

private:
    using Clock = std::chrono::steady_clock;
    Clock::time_point start_ = Clock::now();
};

}  // namespace quern::engine
