// SPDX-License-Identifier: Apache-2.0
// Attention over one span of the KV cache, giving mergeable partial results (out, max, sum).
//
// Order of operations, the same for a row whatever else is in the call: each score is one FMA chain over the
// dimensions, ascending, then * scale, then soft-cap; the maximum over the visible positions; weights exp(s - max);
// their sum in 16 lanes (position mod 16) over ascending tiles, then the tree of f_reduce_add; each output one FMA
// chain over the visible positions, ascending, from 0. A masked position takes part in nothing: its V is never read,
// its score is replaced; in Q8 and Q4 it counts with weight 0 instead.
//
// Both products are the same register tile: R rows x J vectors of accumulators, acc[r][j] += a[r] * b[j]. A tile step
// loads R + J values for R * J FMAs, and two FMAs a cycle of latency four need eight vectors in flight: AVX-512 takes 24 of
// its 32 registers for accumulators (12 x 2 for scores, 6 x 4 for outputs: there 12 x 2 is no faster); AVX2 and NEON have
// room for 6 pairs or quads. The scalar table keeps one: it is the reference, and unrolling would only make it large.
#pragma once

#include "kernels/cpu/ops/kv_store.inl"
#include "kernels/cpu/ops/math.inl"
#include "kernels/views.h"

#if !defined(QUERN_ATTN_ACC)
#if defined(__AVX512F__)
#define QUERN_ATTN_ACC 24
#elif defined(__AVX2__) || defined(__ARM_NEON)
#define QUERN_ATTN_ACC 6
#else
#define QUERN_ATTN_ACC 1
#endif
#endif

#if QUERN_ATTN_ACC == 1
#define QUERN_UNROLL
#elif defined(__clang__)
#define QUERN_UNROLL _Pragma("clang loop unroll(full)")
#else
#define QUERN_UNROLL _Pragma("GCC unroll 16")
#endif

namespace quern::kernels::QUERN_ISA_NS {

constexpr int kAttnRowsQK = QUERN_ATTN_ACC >= 24 ? 12 : QUERN_ATTN_ACC;
constexpr int kAttnRowsPV = QUERN_ATTN_ACC >= 24 ? 6 : QUERN_ATTN_ACC;
constexpr int kSpan = static_cast<int>(kAttnSpan);
constexpr int kSpanTiles = kSpan / 16;
constexpr int kDimChunk = 256;           // dimensions of q packed at a time
constexpr int kQPitch = kDimChunk + 16;  // off the power of two, so that rows do not share cache sets
static_assert(std::size_t{kAttnRowsQK} * (kSpan + kQPitch) * sizeof(float) <= kAttnScratch);

/// Vectors beside R rows, so that R * J accumulators fit.
static constexpr int tile_width(int rows) {
    int j = 8;
    while (j > 1 && rows * j > QUERN_ATTN_ACC) j /= 2;
    return j;
}

template <KvFormat F>
QUERN_INLINE F32x16 kv_load(const std::byte* p) {
    if constexpr (F == KvFormat::F16) return f_load_f16(p);
    else return f_load(reinterpret_cast<const float*>(p));
}

/// Visible positions of a row, counted from the span's begin: [lo, hi), both 0 if there are none.
struct RowRange {
    int lo, hi;
};

QUERN_INLINE RowRange row_range(const AttnArgs& a, int row) {
    const std::int64_t pos = std::int64_t{a.pos0} + row / static_cast<int>(a.n_rep);
    std::int64_t lo = a.window > 0 ? pos - a.window + 1 : a.begin;
    std::int64_t hi = pos + 1;
    if (lo < a.first) lo = a.first;
    if (lo < a.begin) lo = a.begin;
    if (hi > a.end) hi = a.end;
    if (lo >= hi) return {0, 0};
    return {static_cast<int>(lo - a.begin), static_cast<int>(hi - a.begin)};
}

/// s[r][16 j + lane] (+)= q[r] . tile j, over n_d dimensions. s: [R][kSpan]; q: [R][kQPitch]. Few rows wait for memory: the
/// tiles J further on are fetched meanwhile, and V, which lies v_ahead bytes behind K.
template <KvFormat F, int R, int J>
static void qk_tile(const float* q, const std::byte* const* tiles, std::ptrdiff_t v_ahead, int n_d, bool first, float* s) {
    constexpr int kVec = 16 * static_cast<int>(kv_bytes<F>());
    F32x16 acc[R][J];
    const std::byte* b[J];
    QUERN_UNROLL for (int j = 0; j < J; ++j) b[j] = tiles[j];
    QUERN_UNROLL for (int r = 0; r < R; ++r)
        QUERN_UNROLL for (int j = 0; j < J; ++j) acc[r][j] = first ? f_zero() : f_load(s + r * kSpan + j * 16);
    for (int d = 0; d < n_d; ++d) {
        if constexpr (R <= J) {
            F32x16 row[R];
            QUERN_UNROLL for (int r = 0; r < R; ++r) row[r] = f_set1(q[r * kQPitch + d]);
            QUERN_UNROLL for (int j = 0; j < J; ++j) {
                __builtin_prefetch(tiles[J + j] + std::ptrdiff_t{d} * kVec);
                __builtin_prefetch(b[j] + std::ptrdiff_t{d} * kVec + v_ahead);
                const F32x16 k = kv_load<F>(b[j] + std::ptrdiff_t{d} * kVec);
                QUERN_UNROLL for (int r = 0; r < R; ++r) acc[r][j] = f_fma(row[r], k, acc[r][j]);
            }
        } else {
            F32x16 k[J];
            QUERN_UNROLL for (int j = 0; j < J; ++j) k[j] = kv_load<F>(b[j] + std::ptrdiff_t{d} * kVec);
            QUERN_UNROLL for (int r = 0; r < R; ++r) {
                const F32x16 row = f_set1(q[r * kQPitch + d]);
                QUERN_UNROLL for (int j = 0; j < J; ++j) acc[r][j] = f_fma(row, k[j], acc[r][j]);
            }
        }
    }
    QUERN_UNROLL for (int r = 0; r < R; ++r)
        QUERN_UNROLL for (int j = 0; j < J; ++j) f_store(s + r * kSpan + j * 16, acc[r][j]);
}

/// Scores of rows <= R packed query rows against tiles [first_tile, last_tile) of the span.
template <KvFormat F, int R>
static void qk_rows(int rows, const float* q, const std::byte* const* tiles, std::ptrdiff_t v_ahead, int first_tile,
                    int last_tile, int n_d, bool first, float* s) {
    if constexpr (R > 1)
        if (rows < R) return qk_rows<F, R - 1>(rows, q, tiles, v_ahead, first_tile, last_tile, n_d, first, s);
    constexpr int J = tile_width(R);
    for (int t = first_tile / J * J; t < last_tile; t += J) {
        const std::byte* group[2 * J];  // past either end: a tile inside, whose scores nobody reads
        for (int j = 0; j < J; ++j) {
            const int k = t + j;
            group[j] = tiles[k < first_tile ? first_tile : k < last_tile ? k : last_tile - 1];
            group[J + j] = tiles[k + J];
        }
        qk_tile<F, R, J>(q, group, v_ahead, n_d, first, s + t * 16);
    }
}

/// What a mask lets rows see of a span: whose tokens, and the masked positions counted from its begin.
struct SpanMask {
    const std::uint64_t* tokens;
    int from, n_rep;
    bool sees(int row, int t) const { return t < from || (tokens[row / n_rep] >> (t - from) & 1); }
};
QUERN_INLINE SpanMask span_mask(const AttnArgs& a) { return {a.mask, a.mask_from - a.begin, static_cast<int>(a.n_rep)}; }

/// Scores of the tile at t that the row does not see become -inf.
static void mask_tile(const SpanMask& m, int row, int t, float* s) {
    for (int j = t < m.from ? m.from - t : 0; j < 16; ++j)
        if (t + j - m.from >= 64 || !m.sees(row, t + j)) s[t + j] = bits_f32(0xff800000u);
}

/// Scores to weights in place, for the visible range; gives max and sum.
QUERN_INLINE void softmax_row(const AttnArgs& a, int row, RowRange range, float* s, float* ml) {
    const F32x16 scale = f_set1(a.scale), ninf = f_set1(bits_f32(0xff800000u));
    const int begin = range.lo & ~15;
    F32x16 max = ninf;
    for (int t = begin; t < range.hi; t += 16) {
        F32x16 v = f_mul(f_load(s + t), scale);
        if (a.softcap != 0.0f) v = f_mul(f_tanh(f_div(v, f_set1(a.softcap))), f_set1(a.softcap));
        if (range.lo > t) v = f_select_n(ninf, v, range.lo - t);
        if (range.hi < t + 16) v = f_select_n(v, ninf, range.hi - t);
        f_store(s + t, v);
        if (a.mask) {
            mask_tile(span_mask(a), row, t, s);
            v = f_load(s + t);
        }
        max = f_max(max, v);
    }
    const float m = f_reduce_max(max);
    const F32x16 base = f_set1(m == bits_f32(0xff800000u) ? 0.0f : m);  // all -inf: weights 0, not NaN
    F32x16 sum = f_zero();
    for (int t = begin; t < range.hi; t += 16) {
        const F32x16 p = f_exp_neg(f_sub(f_load(s + t), base));
        f_store(s + t, p);
        sum = f_add(sum, p);
    }
    ml[0] = m;
    ml[1] = f_reduce_add(sum);
}

/// Where V lies and how outputs are laid out.
struct PvArgs {
    const KvHeadView* kv;
    int begin;            // the span's first position
    int n_d;              // head_dim
    std::size_t v_pitch;  // elements
    std::size_t out_stride;
    SpanMask mask;
};

/// out[r][16 v + 0 .. 16 J) += sum over t in [t0, t1) of p[r][t] * V[t]. p: [R][kSpan].
template <KvFormat F, int R, int J>
static void pv_tile(const PvArgs& a, const float* p, int t0, int t1, int v, float* out) {
    const std::size_t pitch = a.v_pitch * kv_bytes<F>();
    const int last = a.n_d - (v + J - 1) * 16;  // floats in the last vector
    F32x16 acc[R][J];
    QUERN_UNROLL for (int r = 0; r < R; ++r)
        QUERN_UNROLL for (int j = 0; j < J; ++j) {
            const float* o = out + r * a.out_stride + (v + j) * 16;
            acc[r][j] = j < J - 1 || last >= 16 ? f_load(o) : f_load_n(o, last);
        }
    for (int t = t0; t < t1;) {
        const std::uint32_t pos = static_cast<std::uint32_t>(a.begin + t), slot = pos % a.kv->page_tokens;
        const int left = static_cast<int>(a.kv->page_tokens - slot), end = t1 - t < left ? t1 : t + left;
        const std::byte* b = a.kv->base + a.kv->pages[pos / a.kv->page_tokens] * a.kv->page_stride + a.kv->v_offset +
                             slot * pitch + static_cast<std::size_t>(v) * 16 * kv_bytes<F>();
        for (; t < end; ++t, b += pitch) {
            if constexpr (R <= J) {
                F32x16 row[R];
                QUERN_UNROLL for (int r = 0; r < R; ++r) row[r] = f_set1(p[r * kSpan + t]);
                QUERN_UNROLL for (int j = 0; j < J; ++j) {
                    const F32x16 x = kv_load<F>(b + j * 16 * kv_bytes<F>());
                    QUERN_UNROLL for (int r = 0; r < R; ++r) acc[r][j] = f_fma(row[r], x, acc[r][j]);
                }
            } else {
                F32x16 x[J];
                QUERN_UNROLL for (int j = 0; j < J; ++j) x[j] = kv_load<F>(b + j * 16 * kv_bytes<F>());
                QUERN_UNROLL for (int r = 0; r < R; ++r) {
                    const F32x16 row = f_set1(p[r * kSpan + t]);
                    QUERN_UNROLL for (int j = 0; j < J; ++j) acc[r][j] = f_fma(row, x[j], acc[r][j]);
                }
            }
        }
    }
    QUERN_UNROLL for (int r = 0; r < R; ++r)
        QUERN_UNROLL for (int j = 0; j < J; ++j) {
            float* o = out + r * a.out_stride + (v + j) * 16;
            if (j < J - 1 || last >= 16) f_store(o, acc[r][j]);
            else f_store_n(o, acc[r][j], last);
        }
}

/// All vectors of head_dim from v on, J at a time, then fewer.
template <KvFormat F, int R, int J>
static void pv_columns(const PvArgs& a, const float* p, int t0, int t1, int v, float* out) {
    const int n_vec = (a.n_d + 15) / 16;
    for (; v + J <= n_vec; v += J) pv_tile<F, R, J>(a, p, t0, t1, v, out);
    if constexpr (J > 1)
        if (v < n_vec) pv_columns<F, R, J / 2>(a, p, t0, t1, v, out);
}

template <KvFormat F, int R>
static void pv_rows(int rows, const PvArgs& a, const float* p, int t0, int t1, float* out) {
    if constexpr (R > 1)
        if (rows < R) return pv_rows<F, R - 1>(rows, a, p, t0, t1, out);
    pv_columns<F, R, tile_width(R)>(a, p, t0, t1, 0, out);
}

/// out += sum over the positions t .. end - 1 that the row sees.
template <KvFormat F>
static void pv_row(const PvArgs& a, int row, const float* p, int t, int end, float* out) {
    if (!a.mask.tokens) return pv_rows<F, 1>(1, a, p, t, end, out);
    while (t < end) {
        int seen = t;
        while (seen < end && a.mask.sees(row, seen)) ++seen;
        if (t < seen) pv_rows<F, 1>(1, a, p, t, seen, out);
        t = seen + 1;
    }
}

/// Outputs of rows that may see different ranges: what all see goes through the tile, the rest row by row before and
/// after it, so that each chain stays ascending.
template <KvFormat F>
static void pv_group(const PvArgs& a, int row0, int rows, const RowRange* range, const float* p, float* out) {
    int lo = 0, hi = a.mask.tokens && a.mask.from < kSpan ? a.mask.from : kSpan;
    for (int r = 0; r < rows; ++r) {
        if (range[r].lo > lo) lo = range[r].lo;
        if (range[r].hi < hi) hi = range[r].hi;
        float* o = out + r * a.out_stride;
        for (int d = 0; d < a.n_d; d += 16) f_store_n(o + d, f_zero(), a.n_d - d < 16 ? a.n_d - d : 16);
    }
    const bool common = lo < hi;
    for (int r = 0; r < rows; ++r) {
        const int end = common ? lo : range[r].hi;
        if (range[r].lo < end) pv_row<F>(a, row0 + r, p + r * kSpan, range[r].lo, end, out + r * a.out_stride);
    }
    if (!common) return;
    pv_rows<F, kAttnRowsPV>(rows, a, p, lo, hi, out);
    for (int r = 0; r < rows; ++r)
        if (range[r].hi > hi) pv_row<F>(a, row0 + r, p + r * kSpan, hi, range[r].hi, out + r * a.out_stride);
}

/// Scores of a group of rows from row `row0` on, over the tiles that any of them sees.
template <KvFormat F>
static void qk_group(const AttnArgs& a, int row0, int rows, int first_tile, int last_tile, float* q, float* s) {
    const int hd = static_cast<int>(a.kv.head_dim), n_rep = static_cast<int>(a.n_rep);
    const std::byte* tiles[kSpanTiles + 16];  // beyond last_tile: to be fetched, as far as these rows will get
    const int last_pos = a.pos0 + (row0 + rows - 1) / n_rep;
    for (int t = first_tile; t < last_tile + 16; ++t) {
        const int at = a.begin + t * 16;
        if (t >= last_tile && (at > last_pos || at >= a.known)) {
            tiles[t] = tiles[last_tile - 1];
            continue;
        }
        const std::uint32_t pos = static_cast<std::uint32_t>(at), slot = pos % a.kv.page_tokens;
        tiles[t] = a.kv.base + a.kv.pages[pos / a.kv.page_tokens] * a.kv.page_stride + a.kv.k_offset +
                   std::size_t{slot} * a.kv.head_dim * kv_bytes<F>();
    }
    for (int d0 = 0; d0 < hd; d0 += kDimChunk) {
        const int n_d = hd - d0 < kDimChunk ? hd - d0 : kDimChunk;
        for (int r = 0; r < rows; ++r) {
            const int i = (row0 + r) / n_rep, head = (row0 + r) % n_rep;
            const float* from = a.q + i * a.q_stride + std::ptrdiff_t{head} * hd + d0;
            for (int d = 0; d < n_d; d += 16)
                f_store(q + r * kQPitch + d, f_load_n(from + d, n_d - d < 16 ? n_d - d : 16));
        }
        const auto v_ahead = static_cast<std::ptrdiff_t>(a.kv.v_offset) - static_cast<std::ptrdiff_t>(a.kv.k_offset);
        qk_rows<F, kAttnRowsQK>(rows, q, tiles, v_ahead, first_tile, last_tile, n_d, d0 == 0, s);
        for (int t = first_tile; t < last_tile + 16; ++t) tiles[t] += std::size_t{kDimChunk} * 16 * kv_bytes<F>();
    }
}

// --- Many rows over positions that all of them see, which is most of a prompt's work. With rows taken twelve at a time, each
// of them would widen the span's K and V again (conversions share the ports of the FMAs) and fetch them from the L2 cache (64 KB in
// F16). Here a piece that stays in the L1 cache is widened once for all rows. Each chain is what it was. ---

constexpr bool kSharesPieces = QUERN_ATTN_ACC >= 24;   // elsewhere it has not been measured
/// Positions of V in a piece: 64 KB, of which a step of the tile reads a row of each in order.
QUERN_INLINE int piece_of(int v_pitch) { return v_pitch <= 128 ? 128 : 64; }
static_assert(sizeof(float) * kAttnMaxRows * (kSpan + kQPitch) + kAttnPiece <= kAttnScratch);
static_assert(kAttnPiece >= sizeof(float) * 128 * 128 && kAttnPiece >= sizeof(float) * 64 * kDimChunk && kAttnPiece >= sizeof(float) * 32 * kDimChunk);

QUERN_INLINE bool all_see_all(const AttnArgs& a) {
    const std::int64_t last = std::int64_t{a.pos0} + a.n_tokens - 1;
    return !a.mask && a.first <= a.begin && a.pos0 >= a.end - 1 && (a.window == 0 || last - a.window < a.begin);
}

/// Scores of rows <= R against two widened tiles.
template <int R>
static void qk_pair(int rows, const float* q, const std::byte* const* tiles, int n_d, float* s) {
    if constexpr (R > 1)
        if (rows < R) return qk_pair<R - 1>(rows, q, tiles, n_d, s);
    qk_tile<KvFormat::F32, R, 2>(q, tiles, 0, n_d, true, s);
}

/// Scores of all rows: s[total][kSpan].
template <KvFormat F>
static void qk_shared(const AttnArgs& a, int total, float* q, float* piece, float* s) {
    const int hd = static_cast<int>(a.kv.head_dim), n_rep = static_cast<int>(a.n_rep), n = a.end - a.begin;
    for (int r = 0; r < total; ++r) {
        const float* from = a.q + r / n_rep * a.q_stride + std::ptrdiff_t{r % n_rep} * hd;
        for (int d = 0; d < hd; d += 16) f_store(q + r * kQPitch + d, f_load_n(from + d, hd - d < 16 ? hd - d : 16));
    }
    const int groups = (total + kAttnRowsQK - 1) / kAttnRowsQK;   // of nearly equal size
    for (int t = 0; t < n; t += 32) {
        const std::byte* tiles[4];
        for (int j = 0; j < 2; ++j) {
            float* const to = piece + j * hd * 16;
            tiles[j] = tiles[2 + j] = reinterpret_cast<const std::byte*>(to);
            if (t + 16 * j >= n) continue;   // scores that nobody reads
            const std::uint32_t pos = static_cast<std::uint32_t>(a.begin + t + 16 * j), slot = pos % a.kv.page_tokens;
            const std::byte* k = a.kv.base + a.kv.pages[pos / a.kv.page_tokens] * a.kv.page_stride + a.kv.k_offset +
                                 std::size_t{slot} * a.kv.head_dim * kv_bytes<F>();
            for (int d = 0; d < hd; ++d) f_store(to + d * 16, kv_load<F>(k + std::ptrdiff_t{d} * 16 * static_cast<int>(kv_bytes<F>())));
        }
        for (int g = 0; g < groups; ++g) {
            const int row = g * total / groups, end = (g + 1) * total / groups;
            qk_pair<kAttnRowsQK>(end - row, q + row * kQPitch, tiles, hd, s + row * kSpan + t);
        }
    }
}

/// Outputs of all rows.
template <KvFormat F>
static void pv_shared(const AttnArgs& a, int total, float* piece, const float* s) {
    const int hd = static_cast<int>(a.kv.head_dim), n = a.end - a.begin, pitch = (hd + 15) / 16 * 16, step = piece_of(pitch);
    for (int r = 0; r < total; ++r)
        for (int d = 0; d < hd; d += 16) f_store_n(a.out + r * a.out_stride + d, f_zero(), hd - d < 16 ? hd - d : 16);
    const std::uint32_t page = 0;
    const KvHeadView view{reinterpret_cast<std::byte*>(piece), &page, 0, 0, 0, static_cast<std::uint32_t>(step), a.kv.head_dim};
    const PvArgs pv{&view, 0, hd, static_cast<std::size_t>(pitch), a.out_stride, {}};
    for (int t = 0; t < n; t += step) {
        const int here = n - t < step ? n - t : step;
        for (int i = 0; i < here; ++i) {
            const std::uint32_t pos = static_cast<std::uint32_t>(a.begin + t + i), slot = pos % a.kv.page_tokens;
            const std::byte* v = a.kv.base + a.kv.pages[pos / a.kv.page_tokens] * a.kv.page_stride + a.kv.v_offset +
                                 std::size_t{slot} * static_cast<std::size_t>(pitch) * kv_bytes<F>();
            for (int d = 0; d < pitch; d += 16) f_store(piece + i * pitch + d, kv_load<F>(v + std::ptrdiff_t{d} * static_cast<int>(kv_bytes<F>())));
        }
        for (int r = 0; r < total; r += kAttnRowsPV)
            pv_rows<KvFormat::F32, kAttnRowsPV>(total - r < kAttnRowsPV ? total - r : kAttnRowsPV, pv, s + r * kSpan + t, 0, here, a.out + r * a.out_stride);
    }
}

template <KvFormat F>
static void attention_shared(const AttnArgs& a, int total) {
    float* s = reinterpret_cast<float*>(a.scratch);
    float* q = s + kAttnMaxRows * kSpan;
    float* piece = q + kAttnMaxRows * kQPitch;
    qk_shared<F>(a, total, q, piece, s);
    for (int r = 0; r < total; ++r) softmax_row(a, r, {0, a.end - a.begin}, s + r * kSpan, a.ml + 2 * r);
    pv_shared<F>(a, total, piece, s);
}

template <KvFormat F>
static void attention(const AttnArgs& a) {
    float* s = reinterpret_cast<float*>(a.scratch);
    float* q = s + kAttnRowsQK * kSpan;
    const int total = static_cast<int>(a.n_tokens * a.n_rep);
    if constexpr (kSharesPieces)
        if (total > kAttnRowsQK && a.kv.head_dim <= kDimChunk && all_see_all(a)) return attention_shared<F>(a, total);
    const PvArgs pv{&a.kv, a.begin, static_cast<int>(a.kv.head_dim), (a.kv.head_dim + 15) / 16 * 16, a.out_stride, span_mask(a)};
    for (int row0 = 0; row0 < total; row0 += kAttnRowsQK) {
        const int rows = total - row0 < kAttnRowsQK ? total - row0 : kAttnRowsQK;
        RowRange range[kAttnRowsQK];
        int first_tile = kSpanTiles, last_tile = 0;
        for (int r = 0; r < rows; ++r) {
            range[r] = row_range(a, row0 + r);
            if (range[r].lo >= range[r].hi) continue;
            if (range[r].lo / 16 < first_tile) first_tile = range[r].lo / 16;
            if ((range[r].hi + 15) / 16 > last_tile) last_tile = (range[r].hi + 15) / 16;
        }
        if (first_tile < last_tile) qk_group<F>(a, row0, rows, first_tile, last_tile, q, s);
        for (int r = 0; r < rows; ++r) softmax_row(a, row0 + r, range[r], s + r * kSpan, a.ml + 2 * (row0 + r));
        for (int r = 0; r < rows; r += kAttnRowsPV)
            pv_group<F>(pv, row0 + r, rows - r < kAttnRowsPV ? rows - r : kAttnRowsPV, range + r, s + r * kSpan,
                        a.out + (row0 + r) * a.out_stride);
    }
}

static void attention_f32(const AttnArgs& a) { attention<KvFormat::F32>(a); }
static void attention_f16(const AttnArgs& a) { attention<KvFormat::F16>(a); }

/// An empty partial (l = 0) changes nothing, so that spans a row does not see leave no trace.
static void attn_merge(float* a, float* a_ml, const float* b, const float* b_ml, std::uint32_t n_rows,
                       std::uint32_t head_dim, std::size_t stride) {
    const int hd = static_cast<int>(head_dim);
    for (std::uint32_t r = 0; r < n_rows; ++r, a += stride, b += stride, a_ml += 2, b_ml += 2) {
        if (b_ml[1] == 0.0f) continue;
        const bool replace = a_ml[1] == 0.0f;
        const float m = a_ml[0] > b_ml[0] ? a_ml[0] : b_ml[0];
        const F32x16 wa = f_exp_neg(f_set1(a_ml[0] - m)), wb = f_exp_neg(f_set1(b_ml[0] - m));
        for (int d = 0; d < hd; d += 16) {
            const int n = hd - d < 16 ? hd - d : 16;
            const F32x16 y = f_load_n(b + d, n);
            f_store_n(a + d, replace ? y : f_fma(y, wb, f_mul(f_load_n(a + d, n), wa)), n);
        }
        if (replace) {
            a_ml[1] = b_ml[1];
        } else {
            alignas(64) float l[16];
            f_store(l, f_fma(f_set1(b_ml[1]), wb, f_mul(f_set1(a_ml[1]), wa)));
            a_ml[1] = l[0];
        }
        a_ml[0] = m;
    }
}

static void attn_finish(const float* a, const float* ml, std::uint32_t n_rows, std::uint32_t head_dim,
                        std::size_t a_stride, float* out, std::size_t out_stride, const float* sinks) {
    const int hd = static_cast<int>(head_dim);
    for (std::uint32_t r = 0; r < n_rows; ++r, a += a_stride, out += out_stride, ml += 2) {
        const bool empty = ml[1] == 0.0f;
        F32x16 l = f_set1(empty ? 1.0f : ml[1]), w = f_set1(1.0f);
        if (sinks && !empty) {   // merged as a partial of its own: weight 1, output 0
            const float m = ml[0] > sinks[r] ? ml[0] : sinks[r];
            w = f_exp_neg(f_set1(ml[0] - m));
            l = f_fma(l, w, f_exp_neg(f_set1(sinks[r] - m)));
        }
        for (int d = 0; d < hd; d += 16) {
            const int n = hd - d < 16 ? hd - d : 16;
            f_store_n(out + d, empty ? f_zero() : f_div(f_mul(f_load_n(a + d, n), w), l), n);
        }
    }
}

}  // namespace quern::kernels::QUERN_ISA_NS
