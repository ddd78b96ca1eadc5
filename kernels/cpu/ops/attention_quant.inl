// SPDX-License-Identifier: Apache-2.0
// Attention over Q8 and Q4 pages (layout: KvQuantLayout in kernels/views.h). Scales never meet the codes one by one:
//   score  = sum_d q_d (code_td + zero_d / 4) scale_d = sum_d (q_d scale_d) code_td + 1/4 sum_d (q_d scale_d) zero_d
//   output = sum_t p_t (scale_t code_td + min_t) = sum_t (p_t scale_t) code_td + sum_t p_t min_t
// Order of operations: q_d scale_d is rounded once; a score is one FMA chain over the channels, ascending, that starts from
// the second sum (16 lanes, channel mod 16, FMA, reduced, then the quarter; 0 in Q8); then as in attention.inl up to the
// weights. An output is one FMA chain over the tokens of all groups touched, ascending, from 0, then + sum over p_t min_t
// (16 lanes, token mod 16). A position outside the window counts with weight 0 there: its codes are finite, its scale and
// minimum are not looked at.
#pragma once

#include "kernels/cpu/ops/attention.inl"

namespace quern::kernels::QUERN_ISA_NS {

constexpr int kGroupTokens = static_cast<int>(kKvGroup);
constexpr int kQuantRowsQK = QUERN_ATTN_ACC >= 24 ? 12 : QUERN_ATTN_ACC >= 6 ? 3 : 1;   // two tiles a row
constexpr int kQuantRowsPV = kAttnRowsPV;
static_assert(std::size_t{kAttnRowsQK} * (kSpan + 2 * kQPitch) * sizeof(float) <= kAttnScratch);

static constexpr int quant_tile_width(int rows) { return tile_width(rows) < 4 ? tile_width(rows) : 4; }

template <int C, int R>
QUERN_INLINE void qk_channel(I32x16 word, const float* q, F32x16 (&acc)[R][2]) {
    const F32x16 k0 = f_nibble<8 * C>(word), k1 = f_nibble<8 * C + 4>(word);
    QUERN_UNROLL for (int r = 0; r < R; ++r) {
        const F32x16 row = f_set1(q[r * kQPitch + C]);
        acc[r][0] = f_fma(row, k0, acc[r][0]);
        acc[r][1] = f_fma(row, k1, acc[r][1]);
    }
}

/// s[r][0 .. 32) of one group over n_d channels; q: [R][kQPitch], scaled, zeros up to a multiple of 16.
template <KvFormat F, int R>
static void qk_quant_tile(const float* q, const std::byte* k, int n_d, const float* start, bool first, float* s) {
    F32x16 acc[R][2];
    QUERN_UNROLL for (int r = 0; r < R; ++r)
        QUERN_UNROLL for (int j = 0; j < 2; ++j) acc[r][j] = first ? f_set1(start[r]) : f_load(s + r * kSpan + j * 16);
    if constexpr (F == KvFormat::Q4) {
        for (int d = 0; d < n_d; d += 4, q += 4, k += 64) {
            const I32x16 word = i_cast_f(f_load(reinterpret_cast<const float*>(k)));
            qk_channel<0>(word, q, acc);
            qk_channel<1>(word, q, acc);
            qk_channel<2>(word, q, acc);
            qk_channel<3>(word, q, acc);
        }
    } else {
        for (int d = 0; d < n_d; ++d, ++q, k += 32) {
            const F32x16 k0 = f_from_i(i_load_s8(k)), k1 = f_from_i(i_load_s8(k + 16));
            QUERN_UNROLL for (int r = 0; r < R; ++r) {
                const F32x16 row = f_set1(q[r * kQPitch]);
                acc[r][0] = f_fma(row, k0, acc[r][0]);
                acc[r][1] = f_fma(row, k1, acc[r][1]);
            }
        }
    }
    QUERN_UNROLL for (int r = 0; r < R; ++r)
        QUERN_UNROLL for (int j = 0; j < 2; ++j) f_store(s + r * kSpan + j * 16, acc[r][j]);
}

template <KvFormat F, int R>
static void qk_quant_rows(int rows, const float* q, const std::byte* k, int n_d, const float* start, bool first, float* s) {
    if constexpr (R > 1)
        if (rows < R) return qk_quant_rows<F, R - 1>(rows, q, k, n_d, start, first, s);
    qk_quant_tile<F, R>(q, k, n_d, start, first, s);
}

QUERN_INLINE const std::byte* group_at(const AttnArgs& a, int group) {
    const std::uint32_t page = static_cast<std::uint32_t>(a.begin) / kKvGroup + static_cast<std::uint32_t>(group);
    return a.kv.base + a.kv.pages[page] * a.kv.page_stride + a.kv.k_offset;
}

/// Channels d .. d + 15 of a query times K's scales.
template <KvFormat F>
QUERN_INLINE F32x16 scaled(const float* q, int hd, int d, const std::byte* page, const KvQuantLayout& at) {
    const F32x16 x = f_load_n(q + d, hd - d < 16 ? hd - d : 16);
    if constexpr (F == KvFormat::Q4)
        return f_mul(x, f_mul(f_cast_i(i_shl<20>(i_load_u8(page + at.k_scale + d))), f_set1(0x1p112f)));
    else return f_mul(x, f_load_f16(page + at.k_scale + d * 2));
}

/// Asks for [p, p + bytes): a head's part of a page is too short for the processor to see a stream in it.
QUERN_INLINE void fetch_ahead(const std::byte* p, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes; i += 64) __builtin_prefetch(p + i);
}

/// Scores of rows from row0 on over groups [first, last) of the span. q: room for [rows][kQPitch].
template <KvFormat F>
static void qk_quant_group(const AttnArgs& a, int row0, int rows, int first, int last, float* q, float* s) {
    const int hd = static_cast<int>(a.kv.head_dim), n_rep = static_cast<int>(a.n_rep);
    const KvQuantLayout at(F, a.kv.head_dim);
    const float* from[kAttnRowsQK];
    for (int r = 0; r < rows; ++r)
        from[r] = a.q + static_cast<std::size_t>((row0 + r) / n_rep) * a.q_stride + std::ptrdiff_t{(row0 + r) % n_rep} * hd;
    fetch_ahead(group_at(a, first), at.v_codes);
    for (int g = first; g < last; ++g) {
        const std::byte* page = group_at(a, g);
        if (row0 == 0) {
            if (g + 1 < last) fetch_ahead(group_at(a, g + 1), at.v_codes);
            fetch_ahead(page + at.v_codes, at.bytes - at.v_codes);
        }
        float start[kAttnRowsQK] = {};
        for (int d0 = 0; d0 < hd; d0 += kDimChunk) {
            const int n_d = hd - d0 < kDimChunk ? hd - d0 : kDimChunk;
            for (int r = 0; r < rows; ++r) {
                for (int d = d0; d < d0 + n_d; d += 16) f_store(q + r * kQPitch + d - d0, scaled<F>(from[r], hd, d, page, at));
                if (F != KvFormat::Q4 || d0 > 0) continue;
                F32x16 sum = f_zero();
                for (int d = 0; d < hd; d += 16) {
                    const F32x16 x = d < kDimChunk ? f_load(q + r * kQPitch + d) : scaled<F>(from[r], hd, d, page, at);
                    sum = f_fma(x, f_from_i(i_load_s8(page + at.k_zero + d)), sum);
                }
                start[r] = 0.25f * f_reduce_add(sum);
            }
            const std::byte* k = page + std::ptrdiff_t{d0} * (F == KvFormat::Q4 ? 16 : 32);
            for (int r = 0; r < rows; r += kQuantRowsQK)
                qk_quant_rows<F, kQuantRowsQK>(rows - r < kQuantRowsQK ? rows - r : kQuantRowsQK, q + r * kQPitch, k, n_d,
                                               start + r, d0 == 0, s + r * kSpan + g * kGroupTokens);
        }
    }
}

/// Weights of a row times the scales of V, in place, 0 where the row does not look; returns the sum over p_t min_t.
template <KvFormat F>
QUERN_INLINE float weigh_row(const AttnArgs& a, const KvQuantLayout& at, RowRange range, int first, int last, float* p) {
    F32x16 sum = f_zero();
    for (int t = first * kGroupTokens; t < last * kGroupTokens; t += 16) {
        const int lo = range.lo > t ? range.lo - t : 0, hi = range.hi < t + 16 ? range.hi - t : 16;
        if (lo >= hi) {
            f_store(p + t, f_zero());
            continue;
        }
        const std::byte* page = group_at(a, t / kGroupTokens);
        const auto seen = [&](F32x16 x) { return f_select_n(f_zero(), f_select_n(x, f_zero(), hi), lo); };
        const F32x16 w = f_load(p + t);
        if constexpr (F == KvFormat::Q4) sum = f_fma(seen(w), seen(f_load_f16(page + at.v_min + t % kGroupTokens * 2)), sum);
        f_store(p + t, seen(f_mul(w, f_load_f16(page + at.v_scale + t % kGroupTokens * 2))));
    }
    return F == KvFormat::Q4 ? f_reduce_add(sum) : 0.0f;
}

template <int T, int R, int J>
QUERN_INLINE void pv_token(const I32x16 (&word)[J], const float* p, F32x16 (&acc)[R][J]) {
    F32x16 x[J];
    QUERN_UNROLL for (int j = 0; j < J; ++j) x[j] = f_nibble<4 * T>(word[j]);
    QUERN_UNROLL for (int r = 0; r < R; ++r) {
        const F32x16 row = f_set1(p[r * kSpan + T]);
        QUERN_UNROLL for (int j = 0; j < J; ++j) acc[r][j] = f_fma(row, x[j], acc[r][j]);
    }
}

/// out[r][16 c .. 16 (c + J)) = sum over groups [first, last) of p[r][t] * code[t] + plus[r].
template <KvFormat F, int R, int J>
static void pv_quant_tile(const AttnArgs& a, const KvQuantLayout& at, const float* p, const float* plus, int first, int last,
                          int c, float* out) {
    F32x16 acc[R][J];
    QUERN_UNROLL for (int r = 0; r < R; ++r)
        QUERN_UNROLL for (int j = 0; j < J; ++j) acc[r][j] = f_zero();
    for (int g = first; g < last; ++g) {
        const std::byte* v = group_at(a, g) + at.v_codes + std::ptrdiff_t{c} * (F == KvFormat::Q4 ? 256 : 512);
        const float* w = p + g * kGroupTokens;
        if constexpr (F == KvFormat::Q4) {
            for (int u = 0; u < 4; ++u, v += 64, w += 8) {
                I32x16 word[J];
                QUERN_UNROLL for (int j = 0; j < J; ++j) word[j] = i_cast_f(f_load(reinterpret_cast<const float*>(v + j * 256)));
                pv_token<0>(word, w, acc);
                pv_token<1>(word, w, acc);
                pv_token<2>(word, w, acc);
                pv_token<3>(word, w, acc);
                pv_token<4>(word, w, acc);
                pv_token<5>(word, w, acc);
                pv_token<6>(word, w, acc);
                pv_token<7>(word, w, acc);
            }
        } else {
            for (int t = 0; t < kGroupTokens; ++t, v += 16) {
                F32x16 x[J];
                QUERN_UNROLL for (int j = 0; j < J; ++j) x[j] = f_from_i(i_load_s8(v + j * 512));
                QUERN_UNROLL for (int r = 0; r < R; ++r) {
                    const F32x16 row = f_set1(w[r * kSpan + t]);
                    QUERN_UNROLL for (int j = 0; j < J; ++j) acc[r][j] = f_fma(row, x[j], acc[r][j]);
                }
            }
        }
    }
    const int hd = static_cast<int>(a.kv.head_dim);
    QUERN_UNROLL for (int r = 0; r < R; ++r)
        QUERN_UNROLL for (int j = 0; j < J; ++j) {
            const int d = (c + j) * 16;
            f_store_n(out + r * a.out_stride + d, f_add(acc[r][j], f_set1(plus[r])), hd - d < 16 ? hd - d : 16);
        }
}

template <KvFormat F, int R, int J>
static void pv_quant_columns(const AttnArgs& a, const KvQuantLayout& at, const float* p, const float* plus, int first,
                             int last, int c, float* out) {
    const int columns = (static_cast<int>(a.kv.head_dim) + 15) / 16;
    for (; c + J <= columns; c += J) pv_quant_tile<F, R, J>(a, at, p, plus, first, last, c, out);
    if constexpr (J > 1)
        if (c < columns) pv_quant_columns<F, R, J / 2>(a, at, p, plus, first, last, c, out);
}

template <KvFormat F, int R>
static void pv_quant_rows(int rows, const AttnArgs& a, const KvQuantLayout& at, const float* p, const float* plus, int first,
                          int last, float* out) {
    if constexpr (R > 1)
        if (rows < R) return pv_quant_rows<F, R - 1>(rows, a, at, p, plus, first, last, out);
    pv_quant_columns<F, R, quant_tile_width(R)>(a, at, p, plus, first, last, 0, out);
}

template <KvFormat F>
static void attention_quant(const AttnArgs& a) {
    float* s = reinterpret_cast<float*>(a.scratch);
    float* q = s + kAttnRowsQK * kSpan;
    const KvQuantLayout at(F, a.kv.head_dim);
    const int total = static_cast<int>(a.n_tokens * a.n_rep);
    for (int row0 = 0; row0 < total; row0 += kAttnRowsQK) {
        const int rows = total - row0 < kAttnRowsQK ? total - row0 : kAttnRowsQK;
        RowRange range[kAttnRowsQK];
        int first = kSpan / kGroupTokens, last = 0;
        for (int r = 0; r < rows; ++r) {
            range[r] = row_range(a, row0 + r);
            if (range[r].lo >= range[r].hi) continue;
            if (range[r].lo / kGroupTokens < first) first = range[r].lo / kGroupTokens;
            if ((range[r].hi + kGroupTokens - 1) / kGroupTokens > last) last = (range[r].hi + kGroupTokens - 1) / kGroupTokens;
        }
        if (first < last) qk_quant_group<F>(a, row0, rows, first, last, q, s);
        float plus[kAttnRowsQK] = {};
        for (int r = 0; r < rows; ++r) {
            softmax_row(a, row0 + r, range[r], s + r * kSpan, a.ml + 2 * (row0 + r));
            plus[r] = weigh_row<F>(a, at, range[r], first, last, s + r * kSpan);
        }
        for (int r = 0; r < rows; r += kQuantRowsPV)
            pv_quant_rows<F, kQuantRowsPV>(rows - r < kQuantRowsPV ? rows - r : kQuantRowsPV, a, at, s + r * kSpan, plus + r,
                                           first, last, a.out + (row0 + r) * a.out_stride);
    }
}

static void attention_q8(const AttnArgs& a) { attention_quant<KvFormat::Q8>(a); }
static void attention_q4(const AttnArgs& a) { attention_quant<KvFormat::Q4>(a); }

#undef QUERN_UNROLL

}  // namespace quern::kernels::QUERN_ISA_NS
