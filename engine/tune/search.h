// SPDX-License-Identifier: Apache-2.0
// Which thread counts and which batch: a search that measures little, and does not believe a single measurement.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "engine/core/topology.h"

namespace quern::engine {

struct TuneChoice {
    std::uint32_t n_threads = 1, n_threads_batch = 1;  // of decode, of prefill
    std::uint32_t n_batch = 1;                         // tokens in a step of prefill
    bool operator==(const TuneChoice&) const = default;
};

/// What may be chosen. The first of each is taken where nothing is better by more than noise.
struct TuneCandidates {
    std::vector<std::uint32_t> decode, prefill, batch;
    TuneChoice first() const { return {decode.front(), prefill.front(), batch.front()}; }
    bool only_one() const { return decode.size() * prefill.size() * batch.size() == 1; }
    bool contain(const TuneChoice& choice) const;
    /// What a measurement of n_tokens tokens can tell apart: batches of n_tokens and more are one step in it, for which
    /// the first batch stands; the others of them are left out.
    TuneCandidates judged_on(std::uint32_t n_tokens) const;
};
/// The topology's own counts, fractions of them, and n_batch with what it halves to, not below 128.
TuneCandidates tune_candidates(const Topology& topology, std::uint32_t n_batch);

/// Seconds a token, measured once; nothing where the time that is left does not suffice.
struct TuneCosts {
    std::function<std::optional<double>(std::uint32_t threads)> decode;
    std::function<std::optional<double>(std::uint32_t threads, std::uint32_t batch)> prefill;
};
TuneChoice tune_search(const TuneCandidates& candidates, const TuneCosts& costs);

}  // namespace quern::engine
