// SPDX-License-Identifier: Apache-2.0
// The exact tier of one sequence: a window of F16 pages that moves along its text. Pages are shared: with forks, and with
// sequences whose texts begin alike. Such a page is not written to; another takes its place.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "engine/kv/tiers.h"

namespace quern::engine {

/// table()[0] is the page of the first positions for ever; behind it lies the ring, position p (the first ones too, at first) in
/// page p / page % pages. The ring's part of the table repeats itself once, so that any stretch as long as the ring is
/// consecutive in it.
class ExactRing {
public:
    ExactRing() = default;
    /// Takes the tables' memory; pages only when they are written to. pool may be null (no tiers).
    ExactRing(PagePool* pool, const KvTiers& tiers);
    ExactRing(ExactRing&& o) noexcept { *this = std::move(o); }
    ExactRing& operator=(ExactRing&& o) noexcept;
    ~ExactRing() { trim(0); }

    const std::uint32_t* table() const { return table_.data(); }
    /// The page of position pos, in the ring.
    std::uint32_t page_at(std::uint32_t pos) const { return ids_[slot(pos)]; }
    bool has_first() const { return !ids_.empty() && ids_[0] != kNone; }
    /// Has the pool promise the pages for n tokens, as far as the ring goes: own() finds them. False, with nothing changed, if it
    /// cannot.
    bool reserve(std::uint64_t n_tokens);
    /// Makes the pages of positions from .. to - 1, as far as the ring goes, this sequence's own before a write; what they hold
    /// before `from` stays. False without a promise.
    bool own(std::uint32_t from, std::uint32_t to);
    /// The page of the first positions before a write.
    bool own_first() { return renew(0, true); }

    /// For a chunk that is staged: pages that take its positions from .. to - 1, and where the pool can spare some more of those
    /// from `least` on, while the ring's own are still read. False, with nothing changed, where others hold pages of the ring
    /// and the pool has no more.
    bool stage(std::uint32_t least, std::uint32_t from, std::uint32_t to);
    /// SeqChunk::kept and kept_from; null where nothing is staged.
    const std::uint32_t* kept() const { return kept_.empty() ? nullptr : kept_.data(); }
    std::uint32_t kept_from() const { return kept_from_; }
    /// The chunk has run: its pages become the ring's. fn(pos, page) for each further one, which is given back then.
    template <class Fn>
    void keep_staged(Fn fn) {
        for (std::uint32_t i = 0; i < n_further_; ++i) fn(kept_from_ + i * KvTiers::kSink, kept_[i]);
        settle(true);
    }

    /// Other sequences find the page that holds pos .. by this text from now on, if it could be entered.
    bool publish(std::uint32_t pos, std::uint64_t serial, std::span<const std::int32_t> block) {
        return publish_slot(slot(pos), serial, block);
    }
    /// The page of the first positions, too.
    bool publish_first(std::span<const std::int32_t> block) { return publish_slot(0, 0, block); }
    /// Takes over a reference to the page that holds pos .., or that of the first positions. Pages for it have been reserved.
    void put(std::uint32_t pos, std::uint32_t page) { set(slot(pos), page); }
    void put_first(std::uint32_t page) { set(0, page); }

    /// Shares the pages of another ring of the same pool. False, with nothing taken, if the pool cannot promise as many.
    bool share(const ExactRing& other);
    /// Gives back the pages of a sequence that is now n tokens long.
    void trim(std::uint64_t n_tokens);

private:
    static constexpr std::uint32_t kNone = PrefixIndex::kNone;
    std::uint32_t pages_for(std::uint64_t n) const {
        const std::uint32_t page = KvTiers::kSink;
        return n ? 1 + static_cast<std::uint32_t>(std::min<std::uint64_t>(n_pages_, (n + page - 1) / page)) : 0;
    }
    std::uint32_t slot(std::uint32_t pos) const { return 1 + pos / KvTiers::kSink % n_pages_; }
    bool renew(std::uint32_t slot, bool keep);
    bool publish_slot(std::uint32_t slot, std::uint64_t serial, std::span<const std::int32_t> block);
    void enter(std::uint32_t slot);            // into the table
    void set(std::uint32_t slot, std::uint32_t page);
    void settle(bool ran);

    PagePool* pool_ = nullptr;
    std::uint32_t n_pages_ = 0, n_promised_ = 0;
    std::vector<std::uint32_t> ids_;           // the page of the first positions, then the ring's; kNone: not yet
    std::vector<std::uint32_t> table_;
    std::vector<std::uint32_t> kept_;          // a staged chunk's: first n_further_ that are given back, then those for the ring
    std::uint32_t kept_from_ = 0, n_further_ = 0;
};

}  // namespace quern::engine
