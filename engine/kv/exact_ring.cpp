// SPDX-License-Identifier: Apache-2.0
#include "engine/kv/exact_ring.h"

namespace quern::engine {
namespace {

constexpr std::uint32_t kPage = KvTiers::kSink;

}  // namespace

ExactRing::ExactRing(PagePool* pool, const KvTiers& tiers) : pool_(pool) {
    if (!pool_) return;
    n_pages_ = tiers.ring_tokens / kPage;
    ids_.assign(n_pages_ + 1, kNone);
    table_.resize(2 * std::size_t{n_pages_} + 1);
    kept_.reserve(std::size_t{n_pages_} * (1 + KvTiers::kSpareRings));
}

ExactRing& ExactRing::operator=(ExactRing&& o) noexcept {
    std::swap(pool_, o.pool_);
    std::swap(n_pages_, o.n_pages_);
    std::swap(n_promised_, o.n_promised_);
    ids_.swap(o.ids_);
    table_.swap(o.table_);
    kept_.swap(o.kept_);
    std::swap(kept_from_, o.kept_from_);
    std::swap(n_further_, o.n_further_);
    return *this;
}

bool ExactRing::reserve(std::uint64_t n_tokens) {
    if (!pool_) return true;
    const std::uint32_t need = pages_for(n_tokens);
    if (need <= n_promised_) return true;
    if (!pool_->promise(need - n_promised_)) return false;
    n_promised_ = need;
    return true;
}

void ExactRing::enter(std::uint32_t slot) {
    table_[slot] = ids_[slot];
    if (slot > 0) table_[slot + n_pages_] = ids_[slot];
}

void ExactRing::set(std::uint32_t slot, std::uint32_t page) {
    if (const std::uint32_t old = std::exchange(ids_[slot], page); old != kNone) pool_->release(old);
    enter(slot);
}

bool ExactRing::renew(std::uint32_t slot, bool keep) {
    if (!pool_->renew(ids_[slot], keep)) return false;
    enter(slot);
    return true;
}

bool ExactRing::own(std::uint32_t from, std::uint32_t to) {
    if (!pool_) return true;
    settle(false);
    if (from < kPage && to > 0 && !own_first()) return false;
    from = std::max(from, to - std::min(to, n_pages_ * kPage));
    for (std::uint32_t at = from / kPage * kPage; at < to; at += kPage)
        if (!renew(slot(at), at < from)) return false;
    return true;
}

bool ExactRing::stage(std::uint32_t least, std::uint32_t from, std::uint32_t to) {
    settle(false);
    kept_from_ = from;
    for (std::uint32_t at = from; at < to; at += kPage) {
        const std::uint32_t old = ids_[slot(at)];
        std::uint32_t page = kNone;
        if (old != kNone) page = pool_->beside(old);
        else (void)pool_->renew(page, false);
        if (page == kNone) {
            settle(false);
            return false;
        }
        kept_.push_back(page);
    }
    const std::size_t n = kept_.size();
    for (std::uint32_t page = 0; kept_from_ > least && kept_.size() < kept_.capacity() && (page = pool_->borrow()) != kNone; kept_from_ -= kPage) kept_.push_back(page);
    n_further_ = static_cast<std::uint32_t>(kept_.size() - n);
    std::rotate(kept_.begin(), kept_.begin() + static_cast<std::ptrdiff_t>(n), kept_.end());
    return true;
}

/// Ends what stage() began.
void ExactRing::settle(bool ran) {
    std::uint32_t borrowed = n_further_, at = kept_from_;
    for (std::uint32_t i = 0; i < kept_.size(); ++i, at += kPage) {
        if (i < n_further_) {
            pool_->release(kept_[i]);
            continue;
        }
        const std::uint32_t old = ids_[slot(at)];
        if (kept_[i] == old) continue;
        borrowed += old != kNone;
        if (ran) set(slot(at), kept_[i]);
        else pool_->release(kept_[i]);
    }
    if (borrowed > 0) pool_->repay(borrowed);
    kept_.clear();
    n_further_ = 0;
}

bool ExactRing::publish_slot(std::uint32_t slot, std::uint64_t serial, std::span<const std::int32_t> block) {
    const bool done = pool_->publish_after(serial, block, ids_[slot]);
    enter(slot);
    return done;
}

bool ExactRing::share(const ExactRing& other) {
    if (!pool_) return true;
    trim(0);
    if (!pool_->promise(other.n_promised_)) return false;
    n_promised_ = other.n_promised_;
    for (std::uint32_t i = 0; i < ids_.size(); ++i) {
        if (other.ids_[i] == kNone) continue;
        pool_->add_reference(other.ids_[i]);
        set(i, other.ids_[i]);
    }
    return true;
}

void ExactRing::trim(std::uint64_t n_tokens) {
    if (!pool_) return;
    settle(false);
    const std::uint32_t keep = pages_for(n_tokens);
    for (std::uint32_t i = static_cast<std::uint32_t>(ids_.size()); i-- > keep;)
        if (ids_[i] != kNone) pool_->release(std::exchange(ids_[i], kNone));
    if (n_promised_ <= keep) return;
    pool_->forgive(n_promised_ - keep);
    n_promised_ = keep;
}

}  // namespace quern::engine
