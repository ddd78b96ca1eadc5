// SPDX-License-Identifier: Apache-2.0
// Which page holds the keys and values of which text: a hash chain over full blocks of tokens. A block's key is the block
// before it and its own tokens, both compared in full, so that equal hashes of different texts cannot be taken for each other.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "engine/core/memory.h"
#include "quern/result.hpp"

namespace quern::engine {

/// One entry a page at most, so that the page's number names it. Not thread-safe; the page pool locks. Allocates nothing
/// after create(), and touches memory for entries in use only.
class PrefixIndex {
public:
    /// Of blocks of at most block_tokens tokens, in pages numbered below n_pages. hash_mask: a test makes hashes equal by it.
    static Result<std::unique_ptr<PrefixIndex>> create(std::uint32_t n_pages, std::uint32_t block_tokens, std::uint64_t hash_mask = ~std::uint64_t{0});

    static constexpr std::uint32_t kNone = 0xffffffff;
    /// The page that holds `block` after the text whose last block is `parent` (kNone: from the start), or kNone.
    std::uint32_t find(std::uint32_t parent, std::span<const std::int32_t> block) const { return find_after(serial(parent), block); }
    /// Names the text that ends in a page with an entry, also in another index; 0: the empty text. Never used for another.
    std::uint64_t serial(std::uint32_t page) const { return page == kNone ? 0 : nodes_[page].serial; }
    std::uint32_t find_after(std::uint64_t serial, std::span<const std::int32_t> block) const;
    /// Of the newest pages after that text, the one whose block shares most first tokens with `tokens`; how many, in n.
    std::uint32_t find_part(std::uint32_t parent, std::span<const std::int32_t> tokens, std::uint32_t& n) const;
    /// Enters `page`, which has no entry. False where its bucket is full: a flood of texts of one hash cannot make look-ups slow.
    bool insert(std::uint32_t parent, std::span<const std::int32_t> block, std::uint32_t page) { return insert(serial(parent), parent, block, page); }
    /// After a text of another index, where that gave it this number. find_part() takes it for a beginning.
    bool insert_after(std::uint64_t serial, std::span<const std::int32_t> block, std::uint32_t page) { return insert(serial, kNone, block, page); }
    void erase(std::uint32_t page);
    bool has(std::uint32_t page) const { return nodes_[page].serial != 0; }

    /// The queue of pages that nobody uses, oldest first: push at its end, remove anywhere, oldest() or kNone.
    void push_idle(std::uint32_t page);
    void remove_idle(std::uint32_t page);
    std::uint32_t oldest() const { return head_; }
    /// The oldest that has not been marked since it had its entry or lost the mark, or kNone.
    std::uint32_t oldest_unmarked() const;
    void mark(std::uint32_t page, bool marked) { nodes_[page].marked = marked; }
    bool marked(std::uint32_t page) const { return nodes_[page].marked; }
    std::uint32_t n_idle() const { return n_idle_; }

private:
    /// Links are numbers of pages plus one, so that zeroed memory is an empty index.
    struct Node {
        std::uint64_t serial, parent;      // 0: no entry; serials are never used twice, so no page's new content
        std::uint64_t hash;                // can be taken for an old parent
        std::uint32_t parent_page;         // plus one; 0: none
        std::uint32_t next;                // in the bucket
        std::uint32_t older, newer;        // in the queue
        std::uint32_t child;               // newest page after this one; of its children each
        std::uint32_t left, right;         // knows its neighbours, newer and older
        std::uint32_t n_tokens : 31;       // of the block
        std::uint32_t marked : 1;
    };
    std::uint64_t hash(std::uint64_t parent, std::span<const std::int32_t> block) const;
    std::uint32_t& bucket(std::uint64_t hash) const { return buckets_[hash & (n_buckets_ - 1)]; }
    std::uint32_t& first_child(std::uint32_t parent) { return parent == kNone ? root_child_ : nodes_[parent].child; }
    bool insert(std::uint64_t serial, std::uint32_t parent, std::span<const std::int32_t> block, std::uint32_t page);
    void unlink_child(std::uint32_t page);
    std::int32_t* tokens(std::uint32_t page) const { return tokens_ + std::size_t{page} * block_tokens_; }

    PrefixIndex() = default;
    Mapping memory_;
    Node* nodes_ = nullptr;                // [n_pages]
    std::uint32_t* buckets_ = nullptr;     // [n_buckets_], a power of two: first page plus one
    std::int32_t* tokens_ = nullptr;       // [n_pages][block_tokens]
    std::uint64_t n_buckets_ = 0, last_serial_ = 0, hash_mask_ = 0;
    std::uint32_t block_tokens_ = 0, n_idle_ = 0;
    std::uint32_t head_ = kNone, tail_ = kNone, root_child_ = 0;
};

}  // namespace quern::engine
