// SPDX-License-Identifier: Apache-2.0
#include "engine/tune/adapt.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "formats/text.h"

namespace quern::engine {
namespace {

// Between these shares of the goal nothing changes: wider than what one step of a setting does, or it would swing.
constexpr double kLate = 1.1, kEarly = 0.8;
constexpr std::uint32_t kConfirm = 2;      // updates in a row before a change
constexpr double kLeastCut = 0.9, kMostCut = 0.5;
constexpr double kThreadGain = 0.97;       // of the time that a step took before: else another thread count is not worth it

std::string ms(double seconds) {
    char text[32];
    std::snprintf(text, sizeof text, "%.4g ms", 1e3 * seconds);
    return text;
}

std::string rate(double per_second) {
    char text[32];
    std::snprintf(text, sizeof text, "%.4g tokens/s", per_second);
    return text;
}

}  // namespace

void Adapter::Bad::set(std::uint32_t v) {
    wait = left > 0 || value == 0 ? wait : std::min(2 * wait, kLongestWait);   // it was tried again, and failed again
    value = v;
    left = wait;
}

std::uint32_t Adapter::Bad::raise(std::uint32_t now, std::uint32_t most, bool far) const {
    std::uint32_t to = far ? 2 * now : now + std::max(1u, now / 4);
    if (left > 0 && to >= value) to = value > now + std::max(1u, now / 16) ? now + (value - now) / 2 : now;
    return std::min(std::max(to, now), std::max(most, now));
}

Adapter::Adapter(const AdaptOptions& goals, const AdaptBounds& bounds, const AdaptSettings& start) : goals_(goals), bounds_(bounds) {
    const auto in = [&](std::uint32_t AdaptSettings::*what) { return std::clamp(start.*what, bounds.least.*what, bounds.most.*what); };
    now_.settings = {in(&AdaptSettings::n_running), in(&AdaptSettings::n_prefill), in(&AdaptSettings::n_threads)};
}

const Adapter::Decision& Adapter::update(const AdaptObservation& seen) {
    now_.why.clear();
    running_.pass();
    prefill_.pass();
    if (threads_wait_ > 0) --threads_wait_;
    const double goal = goals_.token_seconds;
    late_ = goal > 0 && seen.token_seconds > kLate * goal ? late_ + 1 : 0;
    early_ = goal <= 0 || seen.token_seconds < kEarly * goal ? early_ + 1 : 0;
    if (threads_before_ != 0) {
        judge_threads(seen);
    } else if (goals_.memory > 0 && seen.memory > goals_.memory) {
        shrink_for_memory(seen);
    } else if (late_ >= kConfirm) {
        speed_up(seen);
    } else if (early_ >= kConfirm) {
        use_room(seen);
    }
    if (!now_.why.empty()) late_ = early_ = 0;
    return now_;
}

void Adapter::change(std::uint32_t AdaptSettings::*what, std::uint32_t to, const std::string& why) {
    to = std::clamp(to, bounds_.least.*what, bounds_.most.*what);
    std::uint32_t& value = now_.settings.*what;
    if (to == value) return;
    const char* name = what == &AdaptSettings::n_running ? "n_running" : what == &AdaptSettings::n_prefill ? "n_prefill" : "n_threads";
    now_.why = cat("adapt: ", name, " ", value, " -> ", to, ": ", why);
    value = to;
}

std::string Adapter::late(const AdaptObservation& seen) const {
    return cat("a token every ", ms(seen.token_seconds), " (90th percentile), the goal is ", ms(goals_.token_seconds));
}

/// Pages in use grow with those that run; less of them come back as requests end.
void Adapter::shrink_for_memory(const AdaptObservation& seen) {
    const auto used = std::min(now_.settings.n_running, static_cast<std::uint32_t>(std::ceil(std::max(1.0, seen.sequences))));
    running_.set(used);
    change(&AdaptSettings::n_running, used - std::max(1u, used / 4), cat("the KV pages in use take ", seen.memory, " bytes, the threshold is ", goals_.memory));
}

void Adapter::speed_up(const AdaptObservation& seen) {
    const double cut = std::clamp(goals_.token_seconds / seen.token_seconds, kMostCut, kLeastCut);
    const AdaptSettings& s = now_.settings;
    if (seen.prefill > 0.25 * s.n_prefill && s.n_prefill > bounds_.least.n_prefill) {
        const auto used = std::min(s.n_prefill, static_cast<std::uint32_t>(std::ceil(seen.prefill)));
        prefill_.set(used);
        return change(&AdaptSettings::n_prefill, static_cast<std::uint32_t>(used * cut), cat(late(seen), "; beside it ", static_cast<int>(seen.prefill), " tokens of prompts are read a step"));
    }
    if (goals_.tokens_per_second > 0 && seen.tokens_per_second * cut < goals_.tokens_per_second) {
        // Fewer at once would come below the least throughput, which then is no longer kept.
        if (try_threads(seen) || conflict_said_) return;
        conflict_said_ = true;
        now_.why = cat("adapt: n_running stays ", s.n_running, ": ", late(seen), ", but with fewer at once less than ", rate(goals_.tokens_per_second), " would come (now ", rate(seen.tokens_per_second), "): the goals contradict each other on this machine");
        return;
    }
    const auto used = std::min(s.n_running, static_cast<std::uint32_t>(std::ceil(std::max(1.0, seen.sequences))));
    if (used > bounds_.least.n_running) {
        running_.set(used);
        const auto to = std::min(used - 1, static_cast<std::uint32_t>(used * cut));
        return change(&AdaptSettings::n_running, to, cat(late(seen), " with ", used, " at once"));
    }
    try_threads(seen);
}

bool Adapter::try_threads(const AdaptObservation& seen) {
    const std::uint32_t n = now_.settings.n_threads;
    if (threads_wait_ > 0 || bounds_.least.n_threads == bounds_.most.n_threads) return false;
    threads_before_ = n;
    seconds_before_ = seen.token_seconds;
    change(&AdaptSettings::n_threads, n < bounds_.most.n_threads ? n + 1 : n - 1, cat(late(seen), "; tried for a while"));
    return true;
}

void Adapter::judge_threads(const AdaptObservation& seen) {
    const std::uint32_t before = threads_before_;
    threads_before_ = 0;
    if (seen.token_seconds < kThreadGain * seconds_before_) {
        now_.why = cat("adapt: n_threads stays ", now_.settings.n_threads, ": a token every ", ms(seen.token_seconds), ", with ", before, " it was ", ms(seconds_before_));
        return;
    }
    threads_wait_ = threads_pause_;
    threads_pause_ = std::min(2 * threads_pause_, kLongestWait);
    change(&AdaptSettings::n_threads, before, cat("a token every ", ms(seen.token_seconds), ", with ", before, " it was ", ms(seconds_before_)));
}

void Adapter::use_room(const AdaptObservation& seen) {
    const AdaptSettings& s = now_.settings;
    conflict_said_ = false;
    const bool full = seen.sequences >= s.n_running - 0.5;
    const bool first_late = goals_.first_token_seconds > 0 && seen.first_token_seconds > kLate * goals_.first_token_seconds;
    const bool low = goals_.tokens_per_second > 0 && seen.tokens_per_second < goals_.tokens_per_second;
    const bool far = seen.token_seconds < 0.5 * goals_.token_seconds;
    const auto room = [&] { return goals_.token_seconds > 0 ? cat("a token every ", ms(seen.token_seconds), ", the goal of ", ms(goals_.token_seconds), " leaves room") : std::string("no goal is missed by it"); };
    // Near the threshold there is no memory for more.
    const bool has_memory = goals_.memory == 0 || static_cast<double>(seen.memory) < kEarly * static_cast<double>(goals_.memory);
    if (full && has_memory && (seen.waiting > 0 || low)) {
        const std::uint32_t to = running_.raise(s.n_running, bounds_.most.n_running, far);
        if (to != s.n_running) return change(&AdaptSettings::n_running, to, cat(seen.waiting, " requests wait, ", rate(seen.tokens_per_second), "; ", room()));
    }
    const std::uint32_t to = prefill_.raise(s.n_prefill, bounds_.most.n_prefill, far);
    if (to != s.n_prefill && (first_late || (seen.waiting > 0 && seen.prefill > 0.75 * s.n_prefill)))
        change(&AdaptSettings::n_prefill, to, cat("first tokens take ", ms(seen.first_token_seconds), first_late ? cat(", the goal is ", ms(goals_.first_token_seconds)) : std::string(), ", ", seen.waiting, " requests wait; ", room()));
}

}  // namespace quern::engine
