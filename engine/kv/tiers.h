// SPDX-License-Identifier: Apache-2.0
// A cache in two tiers: the first positions and the newest exact (F16, in pages of each sequence), those between in pages of
// a quantized format. docs/numerics.md, "Two tiers", states the rule; it depends on positions alone.
#pragma once

#include <algorithm>
#include <cstdint>

#include "engine/kv/page_pool.h"

namespace quern::engine {

struct KvTiers {
    /// Positions migrate in whole groups of this many.
    static constexpr std::uint32_t kBatch = kernels::kKvGroup;
    /// Positions that stay exact for ever: a page. Every head attends to the first tokens, and rounding them costs most.
    static constexpr std::uint32_t kSink = kernels::kLanes;
    /// Tokens that can always be taken back, and the longest chunk that the ring takes without a copy.
    static constexpr std::uint32_t kSlack = 16;
    /// Longer chunks in one run, at most: each needs room for a whole window beside the ring.
    static constexpr std::uint32_t kStagedChunks = 4;
    /// Longest tail whose exact pages other texts find: a page is known by up to a ring of tokens.
    static constexpr std::uint32_t kMostShared = 4096;
    /// Rings of pages for what no sequence holds any more, unless asked for another number: fewer beside few sequences, none
    /// beside one.
    static constexpr std::uint32_t kSpareRings = 2;

    bool on = false;
    std::uint32_t tail = 0;          // positions that stay exact, at least
    std::uint32_t ring_tokens = 0;   // exact positions that a sequence holds, at most: a multiple of a page

    static KvTiers make(std::uint32_t tail, std::uint32_t n_ctx) {
        const std::uint32_t ring = (tail + kBatch + kSlack + kernels::kLanes - 1) / kernels::kLanes * kernels::kLanes;
        return {true, tail, std::min(ring, (n_ctx + kernels::kLanes - 1) / kernels::kLanes * kernels::kLanes)};
    }
    /// What the token at position p sees quantized: [kSink, boundary(p)), nothing where that is 0. p = -1 gives 0.
    std::int32_t boundary(std::int64_t p) const {
        return static_cast<std::int32_t>(std::max<std::int64_t>(0, p + 1 - tail) / kBatch * kBatch);
    }
    /// Tokens with whole groups in the quantized tier once n tokens have run.
    std::uint32_t quantized(std::uint64_t n) const { return static_cast<std::uint32_t>(boundary(static_cast<std::int64_t>(n) - 1)); }
    /// Pages of a block table for n tokens: with two tiers those that are quantized then.
    std::uint32_t pages_for(std::uint64_t n, std::uint32_t page_tokens) const {
        return static_cast<std::uint32_t>(((on ? quantized(n) : n) + page_tokens - 1) / page_tokens);
    }
    /// First exact position that a chunk at pos0 needs: what has not been migrated yet.
    std::int32_t window(std::int32_t pos0) const { return boundary(std::int64_t{pos0} - 1); }
    /// Whether the ring takes the chunk; else it is staged.
    bool fits_ring(std::int32_t pos0, std::uint32_t n) const {
        return static_cast<std::uint32_t>(pos0 - window(pos0)) + n <= ring_tokens;
    }
    /// Room that a staged chunk takes, in tokens.
    std::uint32_t staged_tokens(std::int32_t pos0, std::uint32_t n) const {
        return (static_cast<std::uint32_t>(pos0 - window(pos0)) + n + kernels::kLanes - 1) / kernels::kLanes * kernels::kLanes;
    }
    /// Room for all staged chunks of a batch of n tokens.
    std::uint32_t staging_tokens(std::uint32_t n) const {
        const std::uint32_t all = n + std::min(n / (kSlack + 1), kStagedChunks) * (tail + kBatch + kernels::kLanes);
        return n <= kSlack ? 0 : (all + kernels::kLanes - 1) / kernels::kLanes * kernels::kLanes;
    }
};

/// Pools for sequences of up to n_ctx tokens in all; `model` gives heads and head size.
struct KvPlan {
    KvShape shape, exact;                // of the pages of all positions (or of the quantized ones), and of the rings'
    KvTiers tiers;
    std::uint64_t n_tokens = 0, n_exact_tokens = 0;
    std::uint64_t n_spare_tokens = 0;    // of the exact ones, those beyond the sequences' rings
    /// n_spare_rings: for what texts that begin alike share; -1: as many as KvTiers::kSpareRings says.
    KvPlan(const KvShape& model, kernels::KvFormat format, std::uint32_t tail, std::uint32_t n_sequences, std::uint32_t n_ctx, std::int32_t n_spare_rings = 0);
    /// What the pools hold, to the byte; of the first n layers.
    std::uint64_t bytes(std::uint32_t n_layers = UINT32_MAX) const;
};

}  // namespace quern::engine
