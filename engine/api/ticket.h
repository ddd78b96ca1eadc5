// SPDX-License-Identifier: Apache-2.0
// What a batcher and the tickets of a request share.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>

#include "quern/quern.hpp"

namespace quern {

struct Ticket::State {
    std::uint64_t id = 0;
    std::atomic<bool> cancelled{false};
    std::mutex mutex;
    std::condition_variable changed;
    // Under the mutex:
    std::vector<Token> tokens;
    RequestMetrics metrics;
    std::optional<Result<GenerateResult>> outcome;  // final once it is there
};

}  // namespace quern
