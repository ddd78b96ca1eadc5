// SPDX-License-Identifier: Apache-2.0
#include "engine/kv/page_pool.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <limits>
#include <string>

namespace quern::engine {

std::size_t KvShape::page_bytes(std::uint32_t n_layers) const {
    std::size_t bytes = 0;
    for (std::uint32_t l = 0; l < std::min<std::size_t>(n_layers, n_head_kv.size()); ++l) bytes += layer_bytes(l);
    return bytes;
}

Result<std::unique_ptr<PagePool>> PagePool::create(KvShape shape, std::uint64_t n_tokens, std::uint32_t n_host_layers) {
    const std::uint64_t pages = (n_tokens + shape.page_tokens - 1) / shape.page_tokens;
    if (pages == 0 || pages > (1u << 28) || pages > std::numeric_limits<std::size_t>::max() / 2 / shape.page_bytes())
        return Error{Errc::invalid_argument, "a KV cache of " + std::to_string(n_tokens) + " tokens cannot be made; choose a context between 1 and 2^30"};
    std::unique_ptr<PagePool> p(new PagePool);
    p->shape_ = std::move(shape);
    p->n_pages_ = static_cast<std::uint32_t>(pages);
    std::size_t offset = 0;
    for (std::uint32_t l = 0; l < std::min<std::size_t>(p->shape_.n_head_kv.size(), n_host_layers); ++l) {
        p->layer_offset_.push_back(offset);
        offset += pages * p->part_bytes(l);
    }
    if (offset > 0) {
        auto memory = Mapping::create(offset, "a KV cache of " + std::to_string(n_tokens) + " tokens");
        if (!memory) return std::move(memory).error();
        p->memory_ = std::move(*memory);
    }
    p->references_.assign(pages, 0);
    p->free_.reserve(pages);
    for (std::uint32_t i = p->n_pages_; i-- > 0;) p->free_.push_back(i);
    return p;
}

std::uint32_t PagePool::n_free() const {
    std::lock_guard lock(mutex_);
    return static_cast<std::uint32_t>(free_.size()) + (index_ ? index_->n_idle() : 0);
}

std::uint32_t PagePool::n_kept() const {
    std::lock_guard lock(mutex_);
    return index_ ? index_->n_idle() : 0;
}

/// Makes sure that free_ has a page; only_unused: without giving up one that has been reused.
bool PagePool::free_one(bool only_unused) {
    if (!free_.empty()) return true;
    if (!index_) return false;
    std::uint32_t page = only_unused ? index_->oldest_unmarked() : index_->oldest();
    if (page == PrefixIndex::kNone) return false;
    for (; index_->marked(page); page = index_->oldest()) {
        index_->mark(page, false);
        index_->remove_idle(page);
        index_->push_idle(page);
    }
    index_->remove_idle(page);
    index_->erase(page);
    free_.push_back(page);
    return true;
}

std::uint32_t PagePool::take_one() {
    const std::uint32_t page = free_.back();
    free_.pop_back();
    references_[page] = 1;
    return page;
}

void PagePool::hold(std::uint32_t page) {
    if (references_[page]++ == 0) index_->remove_idle(page);
}

void PagePool::drop(std::uint32_t page) {
    assert(references_[page] > 0);
    if (--references_[page] > 0) return;
    if (index_ && index_->has(page)) index_->push_idle(page);
    else free_.push_back(page);
}

/// The caller's reference to `page` becomes one to `other`.
void PagePool::exchange(std::uint32_t other, std::uint32_t& page) {
    if (other == page) return;
    hold(other);
    drop(page);
    page = other;
}

bool PagePool::take(std::uint32_t n, std::vector<std::uint32_t>& table) {
    std::lock_guard lock(mutex_);
    if (free_.size() + (index_ ? index_->n_idle() : 0) < n) return false;
    for (std::uint32_t i = 0; i < n && free_one(); ++i) table.push_back(take_one());
    return true;
}

void PagePool::add_reference(std::uint32_t page) {
    std::lock_guard lock(mutex_);
    assert(references_[page] > 0);
    ++references_[page];
}

void PagePool::release(std::uint32_t page) {
    std::lock_guard lock(mutex_);
    drop(page);
}

bool PagePool::make_own(std::uint32_t& page) {
    std::uint32_t copy = 0;
    {
        std::lock_guard lock(mutex_);
        const bool published = index_ && index_->has(page);
        if (references_[page] == 1 && !published) return true;
        if (references_[page] == 1 && free_.empty()) {   // a copy would cost another text its page: as well this one
            index_->erase(page);
            return true;
        }
        if (!free_one()) return false;
        copy = take_one();
    }
    // Nobody writes to a page that several hold, so it can be read without the lock.
    const bool copied = copy_page(page, copy).ok();
    release(copied ? page : copy);
    if (copied) page = copy;
    return copied;
}

Status PagePool::keep_prefixes(std::uint32_t block_tokens) {
    auto index = PrefixIndex::create(n_pages_, block_tokens ? block_tokens : shape_.page_tokens);
    if (!index) return std::move(index).error();
    index_ = std::move(*index);
    return {};
}

bool PagePool::publish(std::uint32_t after, std::span<const std::int32_t> block, std::uint32_t& page) {
    std::lock_guard lock(mutex_);
    const std::uint32_t other = index_->find(after, block);
    if (other == PrefixIndex::kNone) return index_->insert(after, block, page);
    exchange(other, page);
    return true;
}

std::uint64_t PagePool::serial(std::uint32_t page) const {
    std::lock_guard lock(mutex_);
    return index_->serial(page);
}

bool PagePool::publish_after(std::uint64_t serial, std::span<const std::int32_t> block, std::uint32_t& page) {
    std::lock_guard lock(mutex_);
    const std::uint32_t other = index_->find_after(serial, block);
    if (other == PrefixIndex::kNone)
        return index_->has(page) || index_->insert_after(serial, block, page);  // one entry a page
    exchange(other, page);
    return true;
}

std::uint32_t PagePool::reuse_after(std::uint64_t serial, std::span<const std::int32_t> block) {
    std::lock_guard lock(mutex_);
    const std::uint32_t page = index_->find_after(serial, block);
    if (page == PrefixIndex::kNone) return page;
    hold(page);
    index_->mark(page, true);
    return page;
}

bool PagePool::promise(std::uint32_t n) {
    std::lock_guard lock(mutex_);
    if (promises_ < n) return false;
    promises_ -= n;
    return true;
}

void PagePool::forgive(std::uint32_t n) {
    std::lock_guard lock(mutex_);
    promises_ += n;
}

std::uint32_t PagePool::n_promises() const {
    std::lock_guard lock(mutex_);
    return promises_;
}

bool PagePool::renew(std::uint32_t& page, bool keep) {
    std::lock_guard lock(mutex_);
    if (page != PrefixIndex::kNone && references_[page] == 1) {
        if (!index_ || !index_->has(page)) return true;
        if (!free_one(true)) {
            index_->erase(page);
            return true;
        }
    }
    if (!free_one()) return false;
    const std::uint32_t other = take_one();
    if (page != PrefixIndex::kNone) {
        // With the lock: two that stop sharing a page at once must not both find it shared and want a page each.
        if (keep && !copy_page(page, other).ok()) {
            drop(other);
            return false;
        }
        drop(page);
    }
    page = other;
    return true;
}

std::uint32_t PagePool::beside(std::uint32_t page) {
    std::lock_guard lock(mutex_);
    const bool alone = references_[page] == 1;
    if (alone && !(index_ && index_->has(page))) return page;
    if (alone && (spare_ == 0 || !free_one(true))) {
        index_->erase(page);
        return page;
    }
    if (spare_ == 0 || !free_one()) return PrefixIndex::kNone;
    --spare_;
    return take_one();
}

std::uint32_t PagePool::borrow() {
    std::lock_guard lock(mutex_);
    if (spare_ == 0 || !free_one(true)) return PrefixIndex::kNone;
    --spare_;
    return take_one();
}

void PagePool::repay(std::uint32_t n) {
    std::lock_guard lock(mutex_);
    spare_ += n;
}

std::uint32_t PagePool::reuse(std::uint32_t after, std::span<const std::int32_t> block) {
    std::lock_guard lock(mutex_);
    const std::uint32_t page = index_->find(after, block);
    if (page != PrefixIndex::kNone) hold(page);
    return page;
}

std::uint32_t PagePool::reuse_part(std::uint32_t after, std::span<const std::int32_t> tokens, std::uint32_t& n) {
    std::lock_guard lock(mutex_);
    const std::uint32_t page = index_->find_part(after, tokens, n);
    if (page != PrefixIndex::kNone) hold(page);
    return page;
}

Status PagePool::copy_page(std::uint32_t from, std::uint32_t to) {
    for (std::uint32_t layer = 0; layer < layer_offset_.size(); ++layer)
        std::memcpy(part(layer, to).data(), part(layer, from).data(), part_bytes(layer));
    return device_ ? device_->copy(from, to) : Status{};
}

Status PagePool::read_page(std::uint32_t page, std::span<std::byte> to) const {
    for (std::uint32_t layer = 0; layer < shape_.n_head_kv.size(); ++layer) {
        const auto here = to.first(part_bytes(layer));
        to = to.subspan(here.size());
        if (layer < layer_offset_.size()) std::memcpy(here.data(), part(layer, page).data(), here.size());
        else if (auto s = device_->read(layer, page, here); !s) return s;
    }
    return {};
}

Status PagePool::write_page(std::uint32_t page, std::span<const std::byte> from) {
    for (std::uint32_t layer = 0; layer < shape_.n_head_kv.size(); ++layer) {
        const auto here = from.first(part_bytes(layer));
        from = from.subspan(here.size());
        if (layer < layer_offset_.size()) std::memcpy(part(layer, page).data(), here.data(), here.size());
        else if (auto s = device_->write(layer, page, here); !s) return s;
    }
    return {};
}

kernels::KvHeadView PagePool::view(std::uint32_t layer, std::uint32_t head, const std::uint32_t* pages) const {
    kernels::KvHeadView v;
    v.base = memory_.data() + layer_offset_[layer];
    v.pages = pages;
    v.page_stride = shape_.layer_bytes(layer);
    v.k_offset = head * shape_.head_bytes();
    v.v_offset = is_quantized(shape_.format) ? v.k_offset : v.k_offset + shape_.page_tokens * shape_.head_dim * shape_.element_bytes();
    v.page_tokens = shape_.page_tokens;
    v.head_dim = shape_.head_dim;
    return v;
}

}  // namespace quern::engine
