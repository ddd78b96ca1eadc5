// SPDX-License-Identifier: Apache-2.0
#include "engine/backend/vulkan_run.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace quern::engine {
namespace {

using vulkan::AttnMerge;
using vulkan::AttnSegment;
using vulkan::ChunkInfo;
using vulkan::KvGroup;
using vulkan::PageCopy;
using vulkan::RunHeader;
using vulkan::TokenInfo;

constexpr auto kSpan = static_cast<std::int32_t>(kernels::kAttnSpan);
constexpr auto kPage = static_cast<std::int32_t>(kernels::kLanes);   // tokens of an exact page

std::size_t pad16(std::size_t n) { return (n + 15) / 16 * 16; }

/// Hands out room behind the header; word offsets are from the header.
struct Room {
    std::byte* base;
    std::size_t used = sizeof(RunHeader);
    template <class T>
    T* take(std::size_t n, vulkan::uint& word) {
        word = static_cast<vulkan::uint>(used / 4);
        T* p = reinterpret_cast<T*>(base + used);
        used += pad16(n * sizeof(T));
        return p;
    }
};

/// A list that grows where it lies; its room is for as many entries as there can be.
template <class T>
struct List {
    T* at = nullptr;
    std::uint32_t n = 0;
    void add(const T& v) { at[n++] = v; }
};

std::uint32_t n_pages(std::int64_t tokens, std::int64_t page) { return static_cast<std::uint32_t>((tokens + page - 1) / page); }

/// Positions of a part of what is seen from `first` to `pos`: multiples of a span, and few enough parts.
std::int32_t part_length(std::int32_t first, std::int32_t pos, std::uint32_t max_parts) {
    const std::int32_t spans = pos / kSpan - first / kSpan + 1;
    return (spans + static_cast<std::int32_t>(max_parts) - 1) / static_cast<std::int32_t>(max_parts) * kSpan;
}

/// Where a chunk's keys lie: tables as word offsets.
struct Where {
    vulkan::uint pages;            // of all positions, or of the quantized ones
    const ChunkInfo* info;         // of the exact ones, which is the same with one tier
};

struct Writer {
    const RunLayout& l;
    const RunArgs& args;
    std::uint32_t bucket;
    Room room;
    RunHeader* h;
    TokenInfo* info = nullptr;
    ChunkInfo* chunk = nullptr;
    std::uint32_t* tables = nullptr;
    std::uint32_t table_word = 0, staged_pages = 0, slots = 0;
    List<AttnSegment> segments[4] = {};
    List<AttnMerge> merges = {};
    List<PageCopy> stage = {}, keep = {};
    List<KvGroup> quantize = {};

    std::int64_t end_of(const SeqChunk& c) const { return std::int64_t{c.pos0} + c.n_tokens; }

    void tokens() {
        const std::size_t n = args.tokens.size();
        std::memcpy(room.take<std::int32_t>(n, h->tokens), args.tokens.data(), n * sizeof(std::int32_t));
        info = room.take<TokenInfo>(n, h->info);
        std::memcpy(room.take<std::uint32_t>(args.outputs.size(), h->outputs), args.outputs.data(), args.outputs.size() * sizeof(std::uint32_t));
        float* rope = room.take<float>(n * l.n_rot, h->rope);
        for (std::uint32_t c = 0; c < args.chunks.size(); ++c) {
            const SeqChunk& s = args.chunks[c];
            for (std::uint32_t i = 0; i < s.n_tokens; ++i) {
                const std::int32_t pos = s.pos0 + static_cast<std::int32_t>(i);
                info[s.first + i] = {c, pos, l.window ? std::max(0, pos + 1 - static_cast<std::int32_t>(l.window)) : 0, 0};
                l.angles->table(s.position(i), rope + std::size_t{s.first + i} * l.n_rot);
            }
        }
    }

    /// Word offset of a table of n page ids, to be filled in at `to`.
    std::uint32_t table(std::size_t n, std::uint32_t*& to) {
        to = tables;
        tables += n;
        const std::uint32_t word = table_word;
        table_word += static_cast<std::uint32_t>(n);
        return word;
    }

    /// Page ids of the sequence's ring from the one of `pos` on.
    const std::uint32_t* ring(const SeqChunk& c, std::int32_t pos) const {
        return c.exact + 1 + static_cast<std::uint32_t>(pos / kPage) % (l.tiers.ring_tokens / kernels::kLanes);
    }

    void chunks() {
        chunk = room.take<ChunkInfo>(args.chunks.size(), h->chunks);
        stage.at = room.take<PageCopy>(l.tiers.on ? max_stage(l, bucket) : 0, h->stage);
        keep.at = room.take<PageCopy>(l.tiers.on ? max_stage(l, bucket) : 0, h->keep);
        quantize.at = room.take<KvGroup>(l.tiers.on ? max_groups(bucket) : 0, h->quantize);
        std::size_t masks = 0, pages = 0;
        for (const SeqChunk& c : args.chunks) {
            masks += c.mask ? c.n_tokens : 0;
            pages += l.tiers.on ? 1 + n_pages(l.tiers.window(static_cast<std::int32_t>(end_of(c))), l.page_tokens) + n_pages(end_of(c) - l.tiers.window(c.pos0), kPage) : n_pages(end_of(c), l.page_tokens);
        }
        vulkan::uint mask_word;
        auto* mask = room.take<std::uint64_t>(masks, mask_word);
        tables = room.take<std::uint32_t>(pages, h->tables);
        table_word = h->tables;
        for (std::uint32_t i = 0; i < args.chunks.size(); ++i) {
            const SeqChunk& c = args.chunks[i];
            ChunkInfo& to = chunk[i];
            to = {c.first, c.n_tokens, c.pos0, 0, 0, vulkan::kSourcePages, 0, 0};
            if (c.mask) {
                std::memcpy(mask, c.mask, c.n_tokens * sizeof(std::uint64_t));
                to.masks = mask_word;
                mask += c.n_tokens;
                mask_word += 2 * c.n_tokens;
            }
            const Where where = l.tiers.on ? two_tiers(c, to) : one_tier(c, to);
            attention(c, where);
        }
    }

    Where one_tier(const SeqChunk& c, ChunkInfo& to) {
        const std::uint32_t n = n_pages(end_of(c), l.page_tokens);
        std::uint32_t* ids;
        to.table = table(n, ids);
        std::memcpy(ids, c.pages, n * sizeof(std::uint32_t));
        return {to.table, &to};
    }

    /// docs/numerics.md, "Two tiers"; cpu_steps.cpp does the same.
    Where two_tiers(const SeqChunk& c, ChunkInfo& to) {
        const auto end = static_cast<std::int32_t>(end_of(c));
        const std::int32_t from = l.tiers.window(c.pos0), group = KvTiers::kBatch;
        const bool staged = !l.tiers.fits_ring(c.pos0, c.n_tokens);
        const std::uint32_t n = n_pages(end - from, kPage), n_quantized = n_pages(l.tiers.window(end), l.page_tokens);
        std::uint32_t *ids, *quantized, *sink;
        to.table = table(n, ids);
        to.origin = from;
        to.source = staged ? vulkan::kSourceStaging : vulkan::kSourceExact;
        to.sink = table(1, sink);
        *sink = c.exact[0];
        const Where where{table(n_quantized, quantized), &to};
        std::memcpy(quantized, c.pages, n_quantized * sizeof(std::uint32_t));
        for (std::uint32_t i = 0; i < n; ++i) ids[i] = staged ? staged_pages + i : ring(c, from)[i];
        for (std::int32_t at = from; at < l.tiers.window(end); at += group) {
            const std::uint32_t page = static_cast<std::uint32_t>(at - from) / kernels::kLanes;
            // Nobody looks for the first positions there: their place must not make the scales of their group coarser.
            quantize.add({to.source, ids[at == 0 ? page + 1 : page], ids[page + 1], c.pages[at / group]});
        }
        if (!staged) return where;
        for (std::uint32_t i = 0; i < n_pages(c.pos0 - from, kPage); ++i) stage.add({vulkan::kSourceExact, ring(c, from)[i], vulkan::kSourceStaging, ids[i]});
        const std::int32_t kept = c.kept ? c.kept_from : std::max(from, (end - static_cast<std::int32_t>(l.tiers.ring_tokens) + kPage - 1) / kPage * kPage);
        const std::uint32_t* to_pages = c.kept ? c.kept : ring(c, kept);
        for (std::uint32_t i = 0; i < n_pages(end - kept, kPage); ++i)
            keep.add({vulkan::kSourceStaging, ids[static_cast<std::uint32_t>((kept - from) / kPage) + i], vulkan::kSourceExact, to_pages[i]});
        staged_pages += n;
        return where;
    }

    /// Lone tokens, or tiles of tokens that see the same positions quantized, over parts of their positions.
    void attention(const SeqChunk& c, const Where& where) {
        for (std::uint32_t i = 0; i < c.n_tokens;) {
            const std::uint32_t first = c.first + i;
            const std::int32_t border = l.tiers.on ? l.tiers.boundary(info[first].pos) : 0;
            std::uint32_t n = 1;
            while (n < l.wide_tokens && i + n < c.n_tokens && (!l.tiers.on || l.tiers.boundary(info[first + n].pos) == border)) ++n;
            tile(first, n, c.n_tokens > 1, border, where);
            i += n;
        }
    }

    void tile(std::uint32_t first, std::uint32_t n, bool wide, std::int32_t border, const Where& where) {
        const std::int32_t least = info[first].first, end = info[first + n - 1].pos + 1, sink = KvTiers::kSink;
        const std::int32_t length = part_length(least, end - 1, RunBlock::max_parts(bucket));
        const std::uint32_t slot = slots;
        const auto add = [&](bool old, std::int32_t begin, std::int32_t stop, vulkan::uint table, std::int32_t origin, std::uint32_t source) {
            segments[(old ? 2 : 0) + (wide ? 1 : 0)].add({first, n, begin, stop, table, origin, source, slots});
            slots += n;
        };
        const auto parts = [&](bool old, std::int32_t from, std::int32_t to, vulkan::uint table, std::int32_t origin, std::uint32_t source) {
            for (std::int32_t begin = from / kSpan * kSpan; begin < to; begin += length) add(old, std::max(begin, from), std::min(begin + length, to), table, origin, source);
        };
        if (border > 0 && least < sink) add(false, least, sink, where.info->sink, 0, vulkan::kSourceExact);
        parts(true, std::max(least, sink), border, where.pages, 0, vulkan::kSourcePages);
        parts(false, std::max(least, border), end, where.info->table, where.info->origin, where.info->source);
        for (std::uint32_t i = 0; i < n; ++i) merges.at[first + i] = {slot + i, n, (slots - slot) / n, 0};
    }

    void lists() {
        const std::size_t n = args.tokens.size();
        merges.at = room.take<AttnMerge>(n, h->merges);
        for (std::uint32_t i = 0; i < 4; ++i) segments[i].at = room.take<AttnSegment>(l.tiers.on || i < 2 ? max_segments(l, bucket) : 0, h->segments[i]);
    }

    static std::size_t max_stage(const RunLayout& l, std::uint32_t bucket) { return l.tiers.staging_tokens(bucket) / kernels::kLanes + KvTiers::kStagedChunks; }
    /// Every chunk of one token may fill its group.
    static std::size_t max_groups(std::uint32_t bucket) { return bucket + KvTiers::kStagedChunks; }
    static std::size_t max_segments(const RunLayout& l, std::uint32_t bucket) { return RunBlock::max_slots(bucket, l.tiers); }
};

std::uint32_t count_of(DispatchShape::Count c, const Writer& w) {
    using Count = DispatchShape::Count;
    switch (c) {
        case Count::one: return 1;
        case Count::tokens: return w.h->n_tokens;
        case Count::outputs: return w.h->n_outputs;
        case Count::stage: return w.stage.n;
        case Count::quantize: return w.quantize.n;
        case Count::keep: return w.keep.n;
        default: return w.segments[static_cast<int>(c) - static_cast<int>(Count::segments)].n;
    }
}

}  // namespace

std::size_t RunBlock::bytes(const RunLayout& l, std::uint32_t bucket) {
    std::size_t a_token = sizeof(std::int32_t) * 2 + sizeof(TokenInfo) + l.n_rot * sizeof(float) + sizeof(ChunkInfo) + sizeof(std::uint64_t) + sizeof(AttnMerge);
    std::size_t pages = n_pages(l.n_ctx, l.page_tokens) + 1, n = 0;   // of a chunk; there may be one a token
    if (l.tiers.on) {
        pages += l.tiers.ring_tokens / kernels::kLanes + 2;
        n += Writer::max_stage(l, bucket) * (2 * sizeof(PageCopy) + sizeof(std::uint32_t)) + Writer::max_groups(bucket) * sizeof(KvGroup);
    }
    a_token += pages * sizeof(std::uint32_t);
    return kHeader + sizeof(RunHeader) + bucket * a_token + n + (l.tiers.on ? 4 : 2) * Writer::max_segments(l, bucket) * sizeof(AttnSegment) + 16 * 32;
}

std::size_t RunBlock::write(std::span<std::byte> to, const RunLayout& layout, std::uint32_t bucket, const RunArgs& args, std::span<const DispatchShape> shapes) {
    std::byte* const base = to.data() + kHeader;
    auto* h = new (base) RunHeader{};
    h->n_tokens = static_cast<std::uint32_t>(args.tokens.size());
    h->n_outputs = static_cast<std::uint32_t>(args.outputs.size());
    h->n_chunks = static_cast<std::uint32_t>(args.chunks.size());
    h->n_rot = layout.n_rot;
    Writer w{layout, args, bucket, {base}, h};
    w.tokens();
    w.lists();
    w.chunks();
    auto* groups = reinterpret_cast<std::uint32_t*>(to.data());
    for (const DispatchShape& s : shapes) {
        using Count = DispatchShape::Count;
        groups[0] = s.x == Count::one ? s.x_groups : count_of(s.x, w);
        groups[1] = s.y == Count::one ? s.y_groups : (count_of(s.y, w) + s.y_groups - 1) / s.y_groups;
        groups[2] = 1;
        groups += 4;
    }
    return kHeader + w.room.used;
}

}  // namespace quern::engine
