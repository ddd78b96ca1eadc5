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
#include "kernels/views.h"
#include "quern/result.hpp"

namespace quern::engine {

/// Shape of the cache of one model.
struct KvShape {
    kernels::KvFormat format = kernels::KvFormat::F16;
    std::uint32_t page_tokens = 16;            // a multiple of kernels::kLanes
    std::uint32_t head_dim = 0;
    std::vector<std::uint32_t> n_head_kv;      // [n_layer]

    std::size_t element_bytes() const { return format == kernels::KvFormat::F32 ? 4 : 2; }
    std::size_t v_pitch() const { return (head_dim + kernels::kLanes - 1) / kernels::kLanes * kernels::kLanes; }
    std::size_t head_bytes() const { return page_tokens * (head_dim + v_pitch()) * element_bytes(); }
    std::size_t page_bytes() const;            // all layers
};

class PagePool {
public:
    /// Reserves room for n_tokens positions (rounded up to pages); memory is touched only when used.
    static Result<std::unique_ptr<PagePool>> create(KvShape shape, std::uint64_t n_tokens);

    const KvShape& shape() const { return shape_; }
    std::span<std::byte> memory() const { return memory_.bytes(); }
    std::uint32_t n_pages() const { return n_pages_; }
    std::uint32_t n_free() const;
    std::uint64_t capacity_bytes() const { return std::uint64_t{n_pages_} * shape_.page_bytes(); }
    std::uint64_t used_bytes() const { return std::uint64_t{n_pages_ - n_free()} * shape_.page_bytes(); }

    /// Appends n page ids with one reference each to `table` (whose capacity suffices); false and nothing taken if fewer
    /// than n are free. Thread-safe.
    bool take(std::uint32_t n, std::vector<std::uint32_t>& table);
    void add_reference(std::uint32_t page);
    void release(std::uint32_t page);
    /// Before a write: where others hold `page` too, it becomes a copy of it that the caller alone holds, and the caller's
    /// reference to the old one is given back. False and nothing changed if no page is free. Thread-safe.
    bool make_own(std::uint32_t& page);

    /// The bytes of `page` that belong to `layer`; all layers together are page_bytes() long.
    std::span<std::byte> part(std::uint32_t layer, std::uint32_t page) const;

    /// Where KV head `head` of `layer` lies, for the sequence with this block table.
    kernels::KvHeadView view(std::uint32_t layer, std::uint32_t head, const std::uint32_t* pages) const;

private:
    PagePool() = default;
    KvShape shape_;
    std::uint32_t n_pages_ = 0;
    Mapping memory_;
    std::vector<std::size_t> layer_offset_;    // of page 0; pages of a layer lie side by side
    mutable std::mutex mutex_;
    std::vector<std::uint32_t> free_;          // a stack; capacity n_pages_
    std::vector<std::uint32_t> references_;
};

}  // namespace quern::engine
