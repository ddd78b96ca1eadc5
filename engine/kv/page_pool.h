// SPDX-License-Identifier: Apache-2.0
// KV cache memory, handed out in pages of page_tokens positions. A page covers all layers; a sequence's block table lists
// its pages in order of position. Reference counts let sequences share pages.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "engine/core/memory.h"
#include "engine/kv/prefix_index.h"
#include "kernels/views.h"
#include "quern/result.hpp"

namespace quern::engine {

/// Shape of the cache of one model.
struct KvShape {
    kernels::KvFormat format = kernels::KvFormat::F16;
    std::uint32_t page_tokens = 16;            // a multiple of kernels::kLanes; kernels::kKvGroup if quantized
    std::uint32_t head_dim = 0;
    std::vector<std::uint32_t> n_head_kv;      // [n_layer]

    std::size_t element_bytes() const { return format == kernels::KvFormat::F32 ? 4 : 2; }   // of an exact format
    std::size_t v_pitch() const { return (head_dim + kernels::kLanes - 1) / kernels::kLanes * kernels::kLanes; }
    std::size_t head_bytes() const {           // of one page
        return is_quantized(format) ? kernels::KvQuantLayout(format, head_dim).bytes : page_tokens * (head_dim + v_pitch()) * element_bytes();
    }
    std::size_t layer_bytes(std::uint32_t layer) const { return n_head_kv[layer] * head_bytes(); }   // of one page
    std::size_t page_bytes(std::uint32_t n_layers = UINT32_MAX) const;   // all layers, or the first n
};

/// Pages of the layers that a device runs, in its own memory. Failures show in the device's next run, too.
class DevicePages {
public:
    virtual ~DevicePages() = default;
    /// Of all its layers.
    virtual Status copy(std::uint32_t from, std::uint32_t to) = 0;
    /// The bytes of `page` that belong to `layer`.
    virtual Status read(std::uint32_t layer, std::uint32_t page, std::span<std::byte> to) const = 0;
    virtual Status write(std::uint32_t layer, std::uint32_t page, std::span<const std::byte> from) = 0;
};

class PagePool {
public:
    /// Reserves room for n_tokens positions (rounded up to pages); memory is touched only when used. The layers from
    /// n_host_layers on lie with attach()ed device pages.
    static Result<std::unique_ptr<PagePool>> create(KvShape shape, std::uint64_t n_tokens, std::uint32_t n_host_layers = UINT32_MAX);
    /// Before the first page is written to.
    void attach(std::unique_ptr<DevicePages> device) { device_ = std::move(device); }

    const KvShape& shape() const { return shape_; }
    std::span<std::byte> memory() const { return memory_.bytes(); }
    std::uint32_t n_pages() const { return n_pages_; }
    /// Pages that take() can give, those kept for reuse among them.
    std::uint32_t n_free() const;
    /// Pages in nobody's use that are kept for reuse.
    std::uint32_t n_kept() const;
    /// The host's layers of a page; 0 where a device has all.
    std::uint64_t host_page_bytes() const { return shape_.page_bytes(static_cast<std::uint32_t>(layer_offset_.size())); }
    /// Of the host's memory.
    std::uint64_t capacity_bytes() const { return n_pages_ * host_page_bytes(); }
    std::uint64_t used_bytes() const { return (n_pages_ - n_free()) * host_page_bytes(); }

    /// Appends n page ids with one reference each to `table` (whose capacity suffices); false and nothing taken if fewer
    /// than n are free. Kept pages go only where no other is free, those out of use longest first. Thread-safe, as all below.
    bool take(std::uint32_t n, std::vector<std::uint32_t>& table);
    void add_reference(std::uint32_t page);
    /// A table's pages are released from its end, so that of a kept text the end is given up before the beginning.
    void release(std::uint32_t page);
    /// Before a write: where others hold `page` too, it becomes a copy of it that the caller alone holds, and the caller's
    /// reference to the old one is given back. False and nothing changed if no page is free. A published page is copied as
    /// well, or, where no page is free, no longer published.
    bool make_own(std::uint32_t& page);

    /// Keeps full pages for other sequences with the same beginning. Before the first page is taken. block_tokens: the longest
    /// block that publish_after() takes; 0: a page of tokens.
    Status keep_prefixes(std::uint32_t block_tokens = 0);
    bool keeps_prefixes() const { return index_ != nullptr; }
    /// Publishes `page`, which holds `block` (page_tokens tokens) after the text that ends in the published page `after`
    /// (PrefixIndex::kNone: the beginning); nobody writes to it from now on. Where another page has the same text already,
    /// `page` is exchanged for that. The caller holds both. False: it stays unpublished.
    bool publish(std::uint32_t after, std::span<const std::int32_t> block, std::uint32_t& page);
    /// The published page of `block` after `after`, with a reference for the caller, or PrefixIndex::kNone.
    std::uint32_t reuse(std::uint32_t after, std::span<const std::int32_t> block);

    /// Names the text that ends in the published page (kNone: the empty text), for pages of another pool to lie behind it.
    std::uint64_t serial(std::uint32_t page) const;
    /// publish() and reuse() behind such a text: the page is known by the tokens of `block`, whichever of them it holds.
    bool publish_after(std::uint64_t serial, std::span<const std::int32_t> block, std::uint32_t& page);
    /// What has been reused so stays longer than what has not: it gets a second chance before it goes.
    std::uint32_t reuse_after(std::uint64_t serial, std::span<const std::int32_t> block);

    /// The same for a page that begins with some of `tokens`: n says how many, at least one.
    std::uint32_t reuse_part(std::uint32_t after, std::span<const std::int32_t> tokens, std::uint32_t& n);

    // Promises. A holder that asks beforehand for as many pages as it will ever hold, each that it shares counted as if it were
    // its own, always finds a page when it stops sharing one.
    /// Pages that cannot be promised: only borrowed. Before the first promise.
    void set_spare(std::uint32_t n) { promises_ = n_pages_ - n, spare_ = n; }
    bool promise(std::uint32_t n);
    void forgive(std::uint32_t n);
    /// Pages that can still be promised.
    std::uint32_t n_promises() const;
    /// Before a write, `page` (kNone: none yet) becomes one that the caller alone holds and nobody finds: itself, or another,
    /// with its contents if `keep`. A published one that nobody else holds stays where there is a page that is free or has
    /// never been reused, else it is given up. False, nothing changed, only without a promise.
    bool renew(std::uint32_t& page, bool keep);
    /// Where the successor of `page` can be written while `page` is still read: `page` itself if the caller alone holds it, else
    /// one that is borrowed (see repay()), else, given up as renew() does, `page`. kNone: others hold it and none can be borrowed.
    std::uint32_t beside(std::uint32_t page);
    /// A page for a while that is free or has never been reused, or kNone.
    std::uint32_t borrow();
    /// So many pages are no longer beyond a promise: released, or others for them.
    void repay(std::uint32_t n);

    /// A page's contents, all layers together page_bytes() long.
    Status copy_page(std::uint32_t from, std::uint32_t to);
    Status read_page(std::uint32_t page, std::span<std::byte> to) const;
    Status write_page(std::uint32_t page, std::span<const std::byte> from);

    /// Where KV head `head` of `layer`, one of the host's, lies, for the sequence with this block table.
    kernels::KvHeadView view(std::uint32_t layer, std::uint32_t head, const std::uint32_t* pages) const;

private:
    PagePool() = default;
    bool free_one(bool only_unused = false);   // these five with the lock held
    std::uint32_t take_one();
    void hold(std::uint32_t page);
    void drop(std::uint32_t page);
    void exchange(std::uint32_t other, std::uint32_t& page);
    std::size_t part_bytes(std::uint32_t layer) const { return shape_.layer_bytes(layer); }
    /// The bytes of `page` that belong to `layer`, one of the host's.
    std::span<std::byte> part(std::uint32_t layer, std::uint32_t page) const { return {memory_.data() + layer_offset_[layer] + page * part_bytes(layer), part_bytes(layer)}; }

    KvShape shape_;
    std::uint32_t n_pages_ = 0;
    Mapping memory_;
    std::vector<std::size_t> layer_offset_;    // [host layers] of page 0; pages of a layer lie side by side
    std::unique_ptr<DevicePages> device_;      // of the other layers
    mutable std::mutex mutex_;
    std::vector<std::uint32_t> free_;          // a stack; capacity n_pages_
    std::vector<std::uint32_t> references_;    // of sequences
    std::unique_ptr<PrefixIndex> index_;       // null: nothing is kept
    std::uint32_t promises_ = 0, spare_ = 0;   // left
};

}  // namespace quern::engine
