// SPDX-License-Identifier: Apache-2.0
// A cache in two tiers: the first positions and the newest exact (F16, in pages of each sequence), those between in pages of
// a quantized format. docs/numerics.md, "Two tiers", states the rule; it depends on positions alone.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

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
    KvPlan(const KvShape& model, kernels::KvFormat format, std::uint32_t tail, std::uint32_t n_sequences, std::uint32_t n_ctx);
    /// What the pools hold, to the byte; of the first n layers.
    std::uint64_t bytes(std::uint32_t n_layers = UINT32_MAX) const;
};

/// The exact tier of one sequence. table()[0] is the page of the first positions for ever; behind it lies the ring, position
/// p (the first ones too, at first) in page p / page % pages. The ring's part of the table repeats itself once, so that any
/// stretch as long as the ring is consecutive in it.
class ExactRing {
public:
    ExactRing() = default;
    /// Takes the table's memory; pages only when reserved. pool may be null (no tiers).
    ExactRing(PagePool* pool, const KvTiers& tiers) : pool_(pool) {
        if (!pool_) return;
        n_pages_ = tiers.ring_tokens / pool_->shape().page_tokens;
        ids_.reserve(n_pages_ + 1);
        table_.resize(2 * std::size_t{n_pages_} + 1);
    }
    ExactRing(ExactRing&& o) noexcept { *this = std::move(o); }
    ExactRing& operator=(ExactRing&& o) noexcept {
        std::swap(pool_, o.pool_);
        std::swap(n_pages_, o.n_pages_);
        ids_.swap(o.ids_);
        table_.swap(o.table_);
        return *this;
    }
    ~ExactRing() { trim(0); }

    const std::uint32_t* table() const { return table_.data(); }
    /// The page of position pos, in the ring.
    std::uint32_t page_at(std::uint32_t pos) const { return table_[1 + pos / pool_->shape().page_tokens % n_pages_]; }
    /// Pages for n tokens, as far as the ring goes. False, with nothing taken, if the pool has too few.
    bool reserve(std::uint64_t n_tokens) {
        if (!pool_) return true;
        const std::uint32_t need = pages_for(n_tokens);
        const std::size_t have = ids_.size();
        if (need <= have) return true;
        if (!pool_->take(need - static_cast<std::uint32_t>(have), ids_)) return false;
        for (std::size_t i = have; i < need; ++i) table_[i] = table_[i ? i + n_pages_ : 0] = ids_[i];
        return true;
    }
    /// The page of the first positions: shared with other sequences whose texts begin with `block` (a page of tokens) ...
    bool publish_first(std::span<const std::int32_t> block) {
        const bool done = pool_->publish(PrefixIndex::kNone, block, ids_[0]);
        table_[0] = ids_[0];
        return done;
    }
    /// ... taken over from one, if there is ...
    bool reuse_first(std::span<const std::int32_t> block) {
        const std::uint32_t page = pool_->reuse(PrefixIndex::kNone, block);
        if (page == PrefixIndex::kNone) return false;
        if (ids_.empty()) ids_.push_back(page);
        else pool_->release(std::exchange(ids_[0], page));
        table_[0] = page;
        return true;
    }
    /// ... and its own before a write. False if there is no page for a copy.
    bool own_first() {
        if (ids_.empty()) return true;
        const bool done = pool_->make_own(ids_[0]);
        table_[0] = ids_[0];
        return done;
    }
    /// Becomes a copy of another ring of the same pool. False, with nothing taken, if the pool has too few pages.
    bool copy(const ExactRing& other) {
        if (!pool_) return true;
        trim(0);
        if (!other.ids_.empty() && !reserve((other.ids_.size() - 1) * std::uint64_t{pool_->shape().page_tokens})) return false;
        for (std::size_t i = 0; i < ids_.size(); ++i)
            if (!pool_->copy_page(other.ids_[i], ids_[i])) return false;
        return true;
    }
    /// Gives back the pages of a sequence that is now n tokens long.
    void trim(std::uint64_t n_tokens) {
        while (pool_ && ids_.size() > pages_for(n_tokens)) {
            pool_->release(ids_.back());
            ids_.pop_back();
        }
    }

private:
    std::uint32_t pages_for(std::uint64_t n) const {
        const std::uint32_t page = pool_->shape().page_tokens;
        return n ? 1 + static_cast<std::uint32_t>(std::min<std::uint64_t>(n_pages_, (n + page - 1) / page)) : 0;
    }

    PagePool* pool_ = nullptr;
    std::uint32_t n_pages_ = 0;
    std::vector<std::uint32_t> ids_, table_;   // the page of the first positions, then the ring's
};

}  // namespace quern::engine
