// SPDX-License-Identifier: Apache-2.0
#include "engine/kv/prefix_index.h"

#include <algorithm>
#include <bit>

#include "formats/hash.h"

namespace quern::engine {
namespace {

constexpr int kMostInBucket = 16;   // with at most one entry a bucket on average, never reached by chance

}  // namespace

Result<std::unique_ptr<PrefixIndex>> PrefixIndex::create(std::uint32_t n_pages, std::uint32_t block_tokens, std::uint64_t hash_mask) {
    std::unique_ptr<PrefixIndex> p(new PrefixIndex);
    p->n_buckets_ = std::bit_ceil(std::uint64_t{n_pages});
    p->block_tokens_ = block_tokens;
    p->hash_mask_ = hash_mask;
    const std::size_t nodes = n_pages * sizeof(Node), buckets = p->n_buckets_ * sizeof(std::uint32_t);
    auto memory = Mapping::create(nodes + buckets + std::size_t{n_pages} * block_tokens * sizeof(std::int32_t), "the index of reusable prompts");
    if (!memory) return std::move(memory).error();
    p->memory_ = std::move(*memory);
    std::byte* base = p->memory_.data();
    p->nodes_ = reinterpret_cast<Node*>(base);
    p->buckets_ = reinterpret_cast<std::uint32_t*>(base + nodes);
    p->tokens_ = reinterpret_cast<std::int32_t*>(base + nodes + buckets);
    return p;
}

std::uint64_t PrefixIndex::hash(std::uint64_t parent, std::span<const std::int32_t> block) const {
    return hash_bytes(std::as_bytes(block), parent) & hash_mask_;
}

std::uint32_t PrefixIndex::find_after(std::uint64_t from, std::span<const std::int32_t> block) const {
    const std::uint64_t h = hash(from, block);
    for (std::uint32_t link = bucket(h); link; link = nodes_[link - 1].next) {
        const Node& n = nodes_[link - 1];
        if (n.hash == h && n.parent == from && n.n_tokens == block.size() && std::equal(block.begin(), block.end(), tokens(link - 1))) return link - 1;
    }
    return kNone;
}

std::uint32_t PrefixIndex::find_part(std::uint32_t parent, std::span<const std::int32_t> text, std::uint32_t& n) const {
    std::uint32_t best = kNone;
    n = 0;
    int seen = 0;
    for (std::uint32_t link = parent == kNone ? root_child_ : nodes_[parent].child; link && seen < kMostInBucket; link = nodes_[link - 1].right, ++seen) {
        const std::size_t most = std::min<std::size_t>(text.size(), nodes_[link - 1].n_tokens);
        const auto same = static_cast<std::uint32_t>(std::mismatch(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(most), tokens(link - 1)).first - text.begin());
        if (same > n) n = same, best = link - 1;
    }
    return best;
}

bool PrefixIndex::insert(std::uint64_t from, std::uint32_t parent, std::span<const std::int32_t> block, std::uint32_t page) {
    const std::uint64_t h = hash(from, block);
    std::uint32_t& first = bucket(h);
    int n = 0;
    for (std::uint32_t link = first; link; link = nodes_[link - 1].next)
        if (++n == kMostInBucket) return false;
    std::uint32_t& child = first_child(parent);
    nodes_[page] = {++last_serial_, from, h, parent + 1, first, 0, 0, 0, 0, child, static_cast<std::uint32_t>(block.size()) & 0x7fffffffu, 0};
    if (child) nodes_[child - 1].left = page + 1;
    child = first = page + 1;
    std::copy(block.begin(), block.end(), tokens(page));
    return true;
}

void PrefixIndex::erase(std::uint32_t page) {
    std::uint32_t* link = &bucket(nodes_[page].hash);
    while (*link != page + 1) link = &nodes_[*link - 1].next;
    *link = nodes_[page].next;
    unlink_child(page);
    nodes_[page].serial = 0;
}

void PrefixIndex::unlink_child(std::uint32_t page) {
    // The parent may be gone, and its page hold another text: then the children that are left have only each other.
    const Node& n = nodes_[page];
    const bool orphan = n.parent_page && nodes_[n.parent_page - 1].serial != n.parent;
    if (n.left) nodes_[n.left - 1].right = n.right;
    else if (!orphan) first_child(n.parent_page - 1) = n.right;
    if (n.right) nodes_[n.right - 1].left = n.left;
}

void PrefixIndex::push_idle(std::uint32_t page) {
    Node& n = nodes_[page];
    n.newer = 0;
    n.older = tail_ + 1;   // kNone + 1 is 0
    if (tail_ == kNone) head_ = page;
    else nodes_[tail_].newer = page + 1;
    tail_ = page;
    ++n_idle_;
}

std::uint32_t PrefixIndex::oldest_unmarked() const {
    std::uint32_t page = head_;
    while (page != kNone && nodes_[page].marked) page = nodes_[page].newer - 1;   // 0 - 1 is kNone
    return page;
}

void PrefixIndex::remove_idle(std::uint32_t page) {
    const Node& n = nodes_[page];
    if (n.older) nodes_[n.older - 1].newer = n.newer;
    else head_ = n.newer - 1;
    if (n.newer) nodes_[n.newer - 1].older = n.older;
    else tail_ = n.older - 1;
    --n_idle_;
}

}  // namespace quern::engine
