// SPDX-License-Identifier: Apache-2.0
// Attention of one KV head with four query heads over a full cache: one token (decode) or a tile of 16 (prefill).
#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "bench/kernels/context.h"

namespace quern::bench {
namespace {

using namespace quern::kernels;

constexpr std::uint32_t kHeadDim = 64, kRep = 4;

/// Bytes of n F16 or F32 tokens.
constexpr std::size_t exact_bytes(KvFormat f, std::uint32_t n) { return std::size_t{2} * n * kHeadDim * (f == KvFormat::F32 ? 4 : 2); }

struct Case {
    const KernelTable* table;
    KvFormat format;
    std::uint32_t depth, n_tokens;

    const char* format_name() const { return std::array{"F32", "F16", "Q8", "Q4"}[static_cast<std::size_t>(format)]; }
    std::uint32_t page_tokens() const { return is_quantized(format) ? kKvGroup : 16; }
    std::size_t page_bytes() const { return is_quantized(format) ? KvQuantLayout(format, kHeadDim).bytes : exact_bytes(format, 16); }
    std::uint32_t n_pages() const { return depth / page_tokens(); }
    std::uint32_t rows() const { return n_tokens * kRep; }
    /// Query-key pairs that are seen: token i of the tile sees all but the tokens after it.
    double pairs() const { return static_cast<double>(kRep) * n_tokens * (depth - (n_tokens - 1) / 2.0); }
    std::string name() const {
        return std::string("attention/") + table->name + '/' + format_name() + "/depth:" + std::to_string(depth) +
               "/tokens:" + std::to_string(n_tokens);
    }
};

KvHeadView view_of(const Case& c, std::byte* base, const std::uint32_t* pages) {
    return {base, pages, c.page_bytes(), 0, c.page_bytes() / 2, c.page_tokens(), kHeadDim};
}

/// Random tokens at all positions; those of quantized formats by way of one group of F16.
void fill(const Case& c, KvHeadView to) {
    const std::size_t n = std::size_t{c.depth} * kHeadDim;
    const std::vector<float> k = random_floats(n), v = random_floats(n, 2);
    if (!is_quantized(c.format)) return c.table->kv_store[static_cast<int>(c.format)]({to, k.data(), v.data(), kHeadDim, kHeadDim, c.depth, 0});
    std::vector<std::byte> group(exact_bytes(KvFormat::F16, kKvGroup));
    const std::uint32_t pages[] = {0, 1};
    const KvHeadView from{group.data(), pages, group.size() / 2, 0, group.size() / 4, 16, kHeadDim};
    for (std::uint32_t t = 0; t < c.depth; t += kKvGroup) {
        const std::size_t at = std::size_t{t} * kHeadDim;
        c.table->kv_store[static_cast<int>(KvFormat::F16)]({from, k.data() + at, v.data() + at, kHeadDim, kHeadDim, kKvGroup, 0});
        c.table->kv_quantize[static_cast<int>(c.format) - kKvExactFormats]({from, to, 0, static_cast<std::int32_t>(t)});
    }
}

/// Buffers of one call, and the walk over the spans as the engine does it.
struct Scene {
    const Case& c;
    std::vector<std::uint32_t> pages;
    std::vector<float> q, out, part, ml, part_ml, result;
    engine::Mapping scratch;

    Scene(const Case& which, engine::Mapping room)
        : c(which), pages(c.n_pages()), q(random_floats(std::size_t{c.rows()} * kHeadDim, 3)), out(q.size()),
          part(q.size()), ml(2 * c.rows()), part_ml(ml.size()), result(q.size()), scratch(std::move(room)) {
        std::iota(pages.begin(), pages.end(), 0u);
    }

    void attend(std::byte* base) {
        AttnArgs a{};
        a.kv = view_of(c, base, pages.data());
        a.q = q.data();
        a.q_stride = std::size_t{kRep} * kHeadDim;
        a.n_tokens = c.n_tokens;
        a.n_rep = kRep;
        a.pos0 = static_cast<std::int32_t>(c.depth - c.n_tokens);
        a.known = static_cast<std::int32_t>(c.depth);
        a.scale = 1.0f / std::sqrt(static_cast<float>(kHeadDim));
        a.out_stride = kHeadDim;
        a.scratch = scratch.data();
        for (std::uint32_t begin = 0; begin < c.depth; begin += kAttnSpan) {
            a.begin = static_cast<std::int32_t>(begin);
            a.end = static_cast<std::int32_t>(std::min(begin + kAttnSpan, c.depth));
            a.out = begin ? part.data() : out.data();
            a.ml = begin ? part_ml.data() : ml.data();
            c.table->attention[static_cast<int>(c.format)](a);
            if (begin) {
                c.table->attn_merge(out.data(), ml.data(), part.data(), part_ml.data(), c.rows(), kHeadDim, kHeadDim);
            }
        }
        c.table->attn_finish(out.data(), ml.data(), c.rows(), kHeadDim, kHeadDim, result.data(), kHeadDim, nullptr);
    }
};

void run(benchmark::State& state, Context& context, const Case& c) {
    auto room = engine::Mapping::create(kAttnScratch, "kernels_bench's scratch");
    if (!room) return state.SkipWithError(room.error().message.c_str());
    Scene scene(c, std::move(*room));
    const std::size_t cache = c.n_pages() * c.page_bytes();
    const std::string key = std::string("kv ") + c.format_name() + std::to_string(c.depth);
    const Status filled = context.ring.prepare(key, cache, context.cold_bytes, [&](std::byte* base) {
        fill(c, view_of(c, base, scene.pages.data()));
    });
    if (!filled) return state.SkipWithError(filled.error().message.c_str());
    // Two products of head_dim a pair.
    const Work work{static_cast<double>(cache), 4.0 * kHeadDim * c.pairs(), Arithmetic::f32};
    context.run(state, 1, work, [&] { scene.attend(context.ring.next()); }, [&] { return checksum(scene.result); });
}

}  // namespace

void register_attention(Context& context) {
    for (const KvFormat format : {KvFormat::F16, KvFormat::F32, KvFormat::Q8, KvFormat::Q4})
        for (const std::uint32_t depth : {256u, 4096u})
            for (const KernelTable* table : context.tables)
                for (const std::uint32_t n_tokens : {1u, kAttnMaxRows / kRep}) {
                    const Case c{table, format, depth, n_tokens};
                    add(c.name(), [&context, c](benchmark::State& state) { run(state, context, c); });
                }
}

}  // namespace quern::bench
