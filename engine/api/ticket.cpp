// SPDX-License-Identifier: Apache-2.0
#include "engine/api/ticket.h"

#include <algorithm>
#include <chrono>

namespace quern {

std::uint64_t Ticket::id() const { return state_->id; }
void Ticket::cancel() noexcept { state_->cancelled.store(true, std::memory_order_relaxed); }

bool Ticket::done() const {
    std::lock_guard lock(state_->mutex);
    return state_->outcome.has_value();
}

void Ticket::wait() const {
    std::unique_lock lock(state_->mutex);
    state_->changed.wait(lock, [&] { return state_->outcome.has_value(); });
}

bool Ticket::wait_for(double seconds) const {
    // Longer than a year is for ever; the clock would overflow.
    const std::chrono::duration<double> time(std::clamp(seconds, 0.0, 3e7));
    std::unique_lock lock(state_->mutex);
    return state_->changed.wait_for(lock, time, [&] { return state_->outcome.has_value(); });
}

std::vector<Token> Ticket::next_tokens(std::size_t have) const {
    std::unique_lock lock(state_->mutex);
    state_->changed.wait(lock, [&] { return state_->outcome.has_value() || state_->tokens.size() > have; });
    const std::vector<Token>& t = state_->tokens;
    return {t.begin() + static_cast<std::ptrdiff_t>(std::min(have, t.size())), t.end()};
}

const Result<GenerateResult>& Ticket::result() const {
    wait();
    return *state_->outcome;
}

RequestMetrics Ticket::metrics() const {
    std::lock_guard lock(state_->mutex);
    return state_->metrics;
}

}  // namespace quern
