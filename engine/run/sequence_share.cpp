// SPDX-License-Identifier: Apache-2.0
// What a sequence takes from others whose texts begin alike, and gives to them.
#include <algorithm>
#include <utility>

#include "engine/run/sequence.h"

namespace quern::engine {

void Sequence::reuse_pages() {
    PagePool& pool = executor_.pages();
    const std::uint32_t page = pool.shape().page_tokens;
    if (!pool.keeps_prefixes() || restored_ || n_published_ != full_pages(n_run_)) return;
    if (executor_.tiers().on) return reuse_tiers();
    for (std::uint32_t& i = n_published_; (i + 1) * std::size_t{page} < tokens_.size(); ++i) {
        const std::uint32_t found = pool.reuse(i ? pages_[i - 1] : PrefixIndex::kNone, std::span(tokens_).subspan(i * page, page));
        if (found == PrefixIndex::kNone) break;
        if (i == pages_.size()) pages_.push_back(found);
        else pool.release(std::exchange(pages_[i], found));
    }
    n_run_ = std::max(n_run_, n_published_ * page);
    if (n_waiting() < 2) return;
    // Of the next page a part may be there. It is copied before this sequence writes behind that part, which takes no more
    // pages than having none would.
    const std::size_t at = n_published_ * std::size_t{page};
    std::uint32_t n = 0;
    const std::uint32_t found = pool.reuse_part(n_published_ ? pages_[n_published_ - 1] : PrefixIndex::kNone, std::span(tokens_).subspan(at, tokens_.size() - at - 1), n);
    if (found == PrefixIndex::kNone) return;
    if (at + n <= n_run_) return pool.release(found);
    if (n_published_ == pages_.size()) pages_.push_back(found);
    else pool.release(std::exchange(pages_[n_published_], found));
    n_run_ = static_cast<std::uint32_t>(at) + n;
}

void Sequence::publish_pages() {
    PagePool& pool = executor_.pages();
    const std::uint32_t page = pool.shape().page_tokens;
    if (!pool.keeps_prefixes() || restored_) return;
    for (std::uint32_t& i = n_published_; i < full_pages(n_run_); ++i)
        if (!pool.publish(i ? pages_[i - 1] : PrefixIndex::kNone, std::span(tokens_).subspan(i * page, page), pages_[i])) return;
}

bool Sequence::keeps_exact() const {
    const PagePool* exact = executor_.exact_pages();
    return exact && exact->keeps_prefixes();
}

void Sequence::publish_exact() {
    constexpr std::uint32_t page = KvTiers::kSink;
    if (!keeps_exact() || restored_ || n_run_ < page || !ring_.has_first()) return;
    if (n_exact_published_ == 0 && !ring_.publish_first(exact_block(0))) return;
    for (std::uint32_t pos = std::max(ring_from_, n_exact_published_ / page * page); pos + page <= n_run_; pos += page) {
        std::uint64_t serial = 0;
        if (exact_serial(pos, serial)) ring_.publish(pos, serial, exact_block(pos));
    }
    n_exact_published_ = n_run_ / page * page;
}

bool Sequence::exact_serial(std::uint32_t pos, std::uint64_t& serial) const {
    const PagePool& pool = executor_.pages();
    const std::uint32_t n = full_pages(pos);
    if (n > n_published_ + found_.size()) return false;
    serial = n ? pool.serial(n > n_published_ ? found_[n - n_published_ - 1] : pages_[n - 1]) : 0;
    return (serial == 0) == (n == 0);
}

std::span<const std::int32_t> Sequence::exact_block(std::uint32_t pos) const {
    const auto from = static_cast<std::uint32_t>(executor_.tiers().window(static_cast<std::int32_t>(pos)));
    return std::span(tokens_).subspan(from, pos + KvTiers::kSink - from);
}

void Sequence::reuse_tiers() {
    constexpr std::uint32_t page = KvTiers::kSink;
    const auto most = static_cast<std::uint32_t>((tokens_.size() - 1) / page * page);   // never the last token
    if (most <= n_run_ || !ring_.reserve(logits_.empty() ? n_ctx_ : tokens_.size())) return;
    PagePool& exact = *executor_.exact_pages();
    publish_exact();   // for what is found to follow on it
    const std::uint32_t first = n_run_ < page ? exact.reuse_after(0, exact_block(0)) : PrefixIndex::kNone;
    if (n_run_ < page && first == PrefixIndex::kNone) return;
    find_quantized(most);
    const std::uint32_t known = full_tokens(n_published_ + static_cast<std::uint32_t>(found_.size()));
    const std::uint32_t n = find_exact(std::min(most, (known + KvTiers::kBatch - 1 + executor_.tiers().tail) / page * page));
    put_found(n);
    if (first == PrefixIndex::kNone) return;
    if (n > 0) ring_.put_first(first);
    else exact.release(first);
}

void Sequence::find_quantized(std::uint32_t n_tokens) {
    const std::uint32_t page = executor_.pages().shape().page_tokens;
    for (std::uint32_t i = n_published_; i < full_pages(n_tokens); ++i) {
        const std::uint32_t after = !found_.empty() ? found_.back() : i ? pages_[i - 1] : PrefixIndex::kNone;
        const std::uint32_t found = executor_.pages().reuse(after, std::span(tokens_).subspan(i * page, page));
        if (found == PrefixIndex::kNone) return;
        found_.push_back(found);
    }
}

std::uint32_t Sequence::find_exact(std::uint32_t n) {
    PagePool& exact = *executor_.exact_pages();
    while (n > n_run_) {
        std::uint32_t pos = n;
        const std::uint32_t from = full_tokens(full_pages(n));
        for (std::uint64_t serial = 0; pos > from; pos -= KvTiers::kSink) {
            const std::uint32_t at = pos - KvTiers::kSink;
            const std::uint32_t found = exact_serial(at, serial) ? exact.reuse_after(serial, exact_block(at)) : PrefixIndex::kNone;
            if (found == PrefixIndex::kNone) break;
            found_exact_.push_back(found);
        }
        if (pos == from) return n;
        for (; !found_exact_.empty(); found_exact_.pop_back()) exact.release(found_exact_.back());
        n = pos - KvTiers::kSink;   // that page is missing
    }
    return 0;
}

void Sequence::put_found(std::uint32_t n) {
    const std::uint32_t before = n_published_;
    if (n > 0) {
        for (; n_published_ < full_pages(n); ++n_published_) {
            const std::uint32_t page = std::exchange(found_[n_published_ - before], PrefixIndex::kNone);
            if (n_published_ == pages_.size()) pages_.push_back(page);
            else executor_.pages().release(std::exchange(pages_[n_published_], page));
        }
        n_run_ = n_exact_published_ = n;
        ring_from_ = full_tokens(n_published_);
        for (std::uint32_t pos = n; const std::uint32_t page : found_exact_) ring_.put(pos -= KvTiers::kSink, page);
        found_exact_.clear();
    }
    for (; !found_.empty(); found_.pop_back())
        if (found_.back() != PrefixIndex::kNone) executor_.pages().release(found_.back());
}

}  // namespace quern::engine
