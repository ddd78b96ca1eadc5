// SPDX-License-Identifier: Apache-2.0
// Matrix times columns, written once for every type and ISA. Each output element is one chain over ascending k,
// whatever path computes it (docs/numerics.md), so the choice of path is free of consequences:
//   few columns    a block's codes go straight from the panel to registers and meet all columns there
//   many columns   kPanels panels are decoded to bytes in scratch, slice by slice; register tiles run over all columns
#pragma once

#include "kernels/cpu/decode/all.inl"
#include "kernels/views.h"

namespace quern::kernels::QUERN_ISA_NS {

/// 32-blocks that a tile takes at a time; with 2 panels their codes fill two thirds of a 48 KiB L1 cache.
constexpr int kSlice = 32;
/// Columns that meet one decoded slice before the next is fetched; their sums live in scratch.
constexpr int kChunk = 256;
/// Tiles of panels that meet a chunk's slice of activations while it is in the L2 cache.
constexpr std::uint32_t kGroup = 4;
/// Bytes ahead of use at which packed weights are prefetched. Streaming Q4_0 with rows of 2048 through two threads of an
/// Emerald Rapids: 512 gives 90% of the speed of reading alone, 1024 92.4, 2048 92.9, 4096 92.4, 8192 less; none at all 75.
constexpr std::size_t kAhead = 2048;

/// Where a stream through panels is kAhead after `at` bytes of its panel: n panels are read side by side, and then the
/// next n.
QUERN_INLINE const std::byte* ahead(const std::byte* panel, std::size_t at, std::size_t stride, int n) {
    at += kAhead;
    return panel + (at < stride ? at : at + stride * static_cast<std::size_t>(n - 1));
}

/// The share of one block in the panel's bytes.
template <class D>
QUERN_INLINE void prefetch_block(const std::byte* panel, std::size_t b, std::size_t stride, int n) {
    const std::byte* p = ahead(panel, b * D::L::kPerBlock, stride, n);
    QUERN_UNROLL_N(16)
    for (std::size_t i = 0; i < D::L::kPerBlock; i += 64) __builtin_prefetch(p + i);
}

/// The first `left` of 16 numbers.
QUERN_INLINE F32x16 load_floats(const std::byte* p, int left) {
    const float* f = reinterpret_cast<const float*>(p);
    return left >= 16 ? f_load(f) : f_load_n(f, left);
}
/// The vocabulary's loads move bits whatever they mean.
QUERN_INLINE I32x16 load_ints(const std::byte* p, int left) { return i_cast_f(load_floats(p, left)); }

/// What columns bring to the blocks [b0, b0 + n) besides their codes. Gathered so that a kernel needs one pointer.
template <bool kMin, bool kHalf, int NC>
struct Side {
    static constexpr int kGroups = kHalf ? 2 : 1;  // scale groups in a 32-block
    alignas(64) float d[NC][kSlice];
    alignas(64) float ds[kMin ? NC : 1][kSlice * kGroups];             // d * sum of codes: meets the minima
    alignas(64) std::int32_t init[kMin ? 1 : NC][kSlice * kGroups];    // -offset * sum of codes

    /// n_cols: columns that there are; the last stands for those beyond.
    QUERN_INLINE_MEMBER void load(const std::byte* x, std::size_t stride, const ActLayout& at, int b0, int n,
                                  int offset, int n_cols = NC) {
        for (int c = 0; c < NC; ++c, x += c < n_cols ? stride : 0) {
            const std::byte* col_d = x + at.d + static_cast<std::size_t>(b0) * 4;
            for (int i = 0; i < n; i += 16) f_store(d[c] + i, load_floats(col_d + 4 * i, n - i));
            const std::byte* sums = x + (kHalf ? at.sum16 : at.sum32) + static_cast<std::size_t>(b0 * kGroups) * 4;
            if constexpr (!kMin) {
                for (int i = 0; i < n * kGroups; i += 16)
                    i_store(init[c] + i, i_mul(load_ints(sums + 4 * i, n * kGroups - i), i_set1(-offset)));
            } else if constexpr (kHalf) {
                for (int i = 0; i < n * 2; i += 16) {
                    alignas(64) float twice[16];
                    for (int j = 0; j < 16; ++j) twice[j] = d[c][(i + j) / 2];
                    f_store(ds[c] + i, f_mul(f_load(twice), f_from_i(load_ints(sums + 4 * i, n * 2 - i))));
                }
            } else {
                const std::byte* col_ds = x + at.dsum32 + static_cast<std::size_t>(b0) * 4;
                for (int i = 0; i < n; i += 16) f_store(ds[c] + i, load_floats(col_ds + 4 * i, n - i));
            }
        }
    }
};

QUERN_INLINE int rows_in_panel(const MatmulArgs& a, std::uint32_t p) {
    const std::uint32_t left = a.n_rows - p * kLanes;
    return static_cast<int>(left < kLanes ? left : kLanes);
}

/// Where column c of x goes from panel p on, and how. Second terms come after their first ones, which are in y then.
struct Place {
    float* y;
    const float* bias;
    bool add;
    QUERN_INLINE_MEMBER Place(const MatmulArgs& a, std::uint32_t p, std::uint32_t c)
        : y(a.y + (c >> a.pairs) * a.y_stride + p * kLanes), bias(a.bias ? a.bias + p * kLanes : nullptr), add(a.add) {
        if (a.pairs && c % 2) bias = nullptr, add = true;
    }
    /// v (+ bias) (+ old y) to rows [0, n) of the panel.
    QUERN_INLINE_MEMBER void put(F32x16 v, int n) const {
        if (bias) v = f_add(v, f_load_n(bias, n));
        if (add) v = f_add(f_load_n(y, n), v);
        f_store_n(y, v, n);
    }
};

/// The same for kPanels panels of columns [c0, c0 + n), from sums [n][kPanels][16].
static void put_sums(const MatmulArgs& a, std::uint32_t p0, std::uint32_t c0, int n, const float* sums) {
    constexpr int kRows = Tiles::kPanels * 16;
    if (!a.bias && (p0 + Tiles::kPanels) * kLanes <= a.n_rows) {  // as good as always
        for (int c = 0; c < n; ++c, sums += kRows) {
            const Place to(a, p0, c0 + static_cast<std::uint32_t>(c));
            QUERN_UNROLL_N(4)
            for (int i = 0; i < kRows; i += 16)
                f_store(to.y + i, to.add ? f_add(f_load(to.y + i), f_load(sums + i)) : f_load(sums + i));
        }
        return;
    }
    for (int c = 0; c < n; ++c)
        for (int p = 0; p < Tiles::kPanels; ++p, sums += 16) {
            const std::uint32_t panel = p0 + static_cast<std::uint32_t>(p);
            Place(a, panel, c0 + static_cast<std::uint32_t>(c)).put(f_load(sums), rows_in_panel(a, panel));
        }
}

// --- few columns ---

/// NC columns and NP panels side by side: as many streams from memory.
template <class D, int NC, int NP>
static void direct_tile(const MatmulArgs& a, std::uint32_t p0, std::uint32_t c0) {
    constexpr int kGroups = D::kHalf ? 2 : 1, N = 8 / kGroups;
    const std::byte* x = a.x + c0 * a.x_stride;
    const ActLayout at(a.n_k);
    const int n_blocks = static_cast<int>(a.n_k / 32);
    Side<D::kMin, D::kHalf, NC> side;
    F32x16 acc[NP][NC];
    QUERN_UNROLL_N(4)
    for (int p = 0; p < NP; ++p)
        QUERN_UNROLL_N(16)
        for (int c = 0; c < NC; ++c) acc[p][c] = f_zero();
    for (int b0 = 0; b0 < n_blocks; b0 += kSlice) {
        const int n = n_blocks - b0 < kSlice ? n_blocks - b0 : kSlice;
        side.load(x, a.x_stride, at, b0, n, D::kOffset);
        for (int b = 0; b < n; ++b) {
            const std::size_t at_b = static_cast<std::size_t>(b0 + b);
            const std::int8_t* q = reinterpret_cast<const std::int8_t*>(x) + at_b * 32;
            QUERN_UNROLL_N(4)
            for (int p = 0; p < NP; ++p) {
                const std::byte* panel = a.w + (p0 + static_cast<std::uint32_t>(p)) * a.panel_stride;
                prefetch_block<D>(panel, at_b, a.panel_stride, NP);
                U8x64 w[8];
                D::codes(panel, at_b, w);
                QUERN_UNROLL_N(2)
                for (int h = 0; h < kGroups; ++h) {
                    const F32x16 scale = D::scale(panel, at_b, h);
                    F32x16 min = f_zero();
                    if constexpr (D::kMin) min = D::min(panel, at_b, h);
                    const int i = b * kGroups + h;
                    // Columns inside steps: neighbours do not depend on each other, so a small scheduler finds work.
                    Dot<D::kBits, D::kSigned, N> dot[NC];
                    QUERN_UNROLL_N(16)
                    for (int c = 0; c < NC; ++c) dot[c].begin(D::kOffset == 0 ? i_zero() : i_set1(side.init[c][i]));
                    QUERN_UNROLL_N(8)
                    for (int g = 0; g < N; ++g)
                        QUERN_UNROLL_N(16)
                        for (int c = 0; c < NC; ++c)
                            dot[c].step(g, w[N * h + g], q + static_cast<std::size_t>(c) * a.x_stride + (N * h + g) * 4);
                    QUERN_UNROLL_N(16)
                    for (int c = 0; c < NC; ++c) {
                        acc[p][c] = f_fma(f_from_i(dot[c].end()), f_mul(scale, f_set1(side.d[c][b])), acc[p][c]);
                        if constexpr (D::kMin) acc[p][c] = f_fma(min, f_set1(side.ds[c][i]), acc[p][c]);
                    }
                }
            }
        }
    }
    QUERN_UNROLL_N(4)
    for (int p = 0; p < NP; ++p) {
        const std::uint32_t panel = p0 + static_cast<std::uint32_t>(p);
        const int rows = rows_in_panel(a, panel);
        QUERN_UNROLL_N(16)
        for (int c = 0; c < NC; ++c) Place(a, panel, c0 + static_cast<std::uint32_t>(c)).put(acc[p][c], rows);
    }
}

/// Runs tile<NC> over columns [0, n) in steps of at most kMax, as even as they come.
template <int kMax, class Call>
QUERN_INLINE void even_steps(std::uint32_t n, Call call) {
    const std::uint32_t steps = (n + kMax - 1) / kMax;
    std::uint32_t c = 0;
    for (std::uint32_t s = 0; s < steps; ++s) {
        const std::uint32_t end = static_cast<std::uint32_t>(std::uint64_t{s + 1} * n / steps);
        call(c, static_cast<int>(end - c));
        c = end;
    }
}

template <class D, int NC>
QUERN_INLINE void direct_n(int nc, const MatmulArgs& a, std::uint32_t p, std::uint32_t c) {
    if constexpr (NC > 0) {
        if (nc == NC) return direct_tile<D, NC, 1>(a, p, c);
        direct_n<D, NC - 1>(nc, a, p, c);
    }
}

template <class D>
static void direct(const MatmulArgs& a, std::uint32_t p) {
    even_steps<Tiles::kDirectCols>(a.n_cols, [&](std::uint32_t c, int nc) __attribute__((always_inline)) {
        direct_n<D, Tiles::kDirectCols>(nc, a, p, c);
    });
}

// --- many columns ---

/// Blocks [b0, b0 + n) of decoded panels and NC columns from x on.
struct Tile {
    const std::byte* scratch;
    const std::byte* x;
    std::size_t x_stride;
    float* sums;  // [NC][kPanels][16]
    int b0, n, offset;
};

template <int kBits, bool kSigned, bool kMin, bool kHalf, int NC>
static void wide_tile(const Tile& t, const ActLayout& at);

/// How a panel's block of codes lies in scratch (kBytes of it), and the tile that reads them.
struct PlainForm {
    static constexpr std::size_t kBytes = 512;
    static constexpr bool kAnyCount = false;   // tile() takes the number of columns, up to Tiles::kCols, as an argument
    template <bool kHalf> struct Use {};       // lives while tiles run
    QUERN_MEMBER void put(std::byte* to, const U8x64* w) {
        QUERN_UNROLL_N(8)
        for (int g = 0; g < 8; ++g) __builtin_memcpy(to + 64 * g, &w[g], 64);
    }
    template <int kBits, bool kSigned, bool kMin, bool kHalf, int NC>
    QUERN_MEMBER void tile(const Tile& t, const ActLayout& at) {
        wide_tile<kBits, kSigned, kMin, kHalf, NC>(t, at);
    }
};

}  // namespace quern::kernels::QUERN_ISA_NS

// An ISA whose multiplier wants codes in another order or width gives its own form, for all of them or for signed ones.
#ifdef QUERN_WIDE_FORM
#include QUERN_WIDE_FORM
#endif

namespace quern::kernels::QUERN_ISA_NS {

#ifndef QUERN_WIDE_FORM
template <bool kSigned> using WideForm = PlainForm;
#endif

/// Scratch of the wide path, in bytes: one slice's codes [block][panel][form] | its scales, then minima
/// [block][panel][group][16] | sums [kGroup][kChunk][panel][16].
template <class D>
struct Wide {
    static constexpr int kPanels = Tiles::kPanels, kGroups = D::kHalf ? 2 : 1;
    static constexpr std::size_t kCodes = kPanels * WideForm<D::kSigned>::kBytes, kScales = kPanels * kGroups * 64;
    static constexpr std::size_t kScaleAt = kSlice * kCodes, kMinAt = kScaleAt + kSlice * kScales;
    static constexpr std::size_t kSumsAt = kMinAt + (D::kMin ? kSlice * kScales : 0);
    static constexpr std::size_t kBytes = kSumsAt + std::size_t{kGroup} * kChunk * kPanels * 64;
};

template <int kBits, bool kSigned, bool kMin, bool kHalf, int NC>
static void wide_tile(const Tile& t, const ActLayout& at) {
    constexpr int NP = Tiles::kPanels, kGroups = kHalf ? 2 : 1, N = 8 / kGroups;
    Side<kMin, kHalf, NC> side;
    side.load(t.x, t.x_stride, at, t.b0, t.n, t.offset);
    F32x16 acc[NC][NP];
    QUERN_UNROLL_N(16)
    for (int c = 0; c < NC; ++c)
        QUERN_UNROLL_N(2)
        for (int p = 0; p < NP; ++p) acc[c][p] = f_load(t.sums + (c * NP + p) * 16);
    const std::int8_t* q = reinterpret_cast<const std::int8_t*>(t.x) + t.b0 * 32;
    const std::byte* codes = t.scratch;
    const float* scales = reinterpret_cast<const float*>(t.scratch + kSlice * NP * 512);
    const float* mins = scales + kSlice * NP * kGroups * 16;
    const std::size_t first = static_cast<std::size_t>(t.b0) * 4;
    const std::size_t side_at[2] = {at.d + first, kHalf ? at.sum16 + 2 * first : (kMin ? at.dsum32 : at.sum32) + first};
    for (int b = 0; b < t.n; ++b) {
        // The next tile's columns, codes and in the second half of a line the rest: too many short streams for the
        // hardware to foresee.
        const std::byte* next = t.x + (b & 1 ? side_at[b >> 1 & 1] + (b >> 2 & 1) * 64 : static_cast<std::size_t>(t.b0 + b) * 32);
        QUERN_UNROLL_N(16)
        for (int c = 0; c < NC; ++c) __builtin_prefetch(next + static_cast<std::size_t>(NC + c) * t.x_stride);
        QUERN_UNROLL_N(2)
        for (int h = 0; h < kGroups; ++h) {
            Dot<kBits, kSigned, N> dot[NC][NP];
            QUERN_UNROLL_N(16)
            for (int c = 0; c < NC; ++c)
                QUERN_UNROLL_N(2)
                for (int p = 0; p < NP; ++p) dot[c][p].begin(kMin ? i_zero() : i_set1(side.init[c][b * kGroups + h]));
            QUERN_UNROLL_N(8)
            for (int g = 0; g < N; ++g) {
                U8x64 w[NP];
                QUERN_UNROLL_N(2)
                for (int p = 0; p < NP; ++p) w[p] = u_load(codes + p * 512 + (N * h + g) * 64);
                QUERN_UNROLL_N(16)
                for (int c = 0; c < NC; ++c)
                    QUERN_UNROLL_N(2)
                    for (int p = 0; p < NP; ++p)
                        dot[c][p].step(g, w[p], q + static_cast<std::size_t>(c) * t.x_stride + (N * h + g) * 4);
            }
            QUERN_UNROLL_N(2)
            for (int p = 0; p < NP; ++p) {
                const F32x16 scale = f_load(scales + (p * kGroups + h) * 16);
                QUERN_UNROLL_N(16)
                for (int c = 0; c < NC; ++c)
                    acc[c][p] = f_fma(f_from_i(dot[c][p].end()), f_mul(scale, f_set1(side.d[c][b])), acc[c][p]);
                if constexpr (kMin) {
                    const F32x16 min = f_load(mins + (p * kGroups + h) * 16);
                    QUERN_UNROLL_N(16)
                    for (int c = 0; c < NC; ++c)
                        acc[c][p] = f_fma(min, f_set1(side.ds[c][b * kGroups + h]), acc[c][p]);
                }
            }
        }
        q += 32;
        codes += NP * 512;
        scales += NP * kGroups * 16;
        if constexpr (kMin) mins += NP * kGroups * 16;
    }
    QUERN_UNROLL_N(16)
    for (int c = 0; c < NC; ++c)
        QUERN_UNROLL_N(2)
        for (int p = 0; p < NP; ++p) f_store(t.sums + (c * NP + p) * 16, acc[c][p]);
}

template <class D, int NC>
QUERN_INLINE void wide_n(int nc, const Tile& t, const ActLayout& at) {
    using Form = WideForm<D::kSigned>;
    if constexpr (Form::kAnyCount) {
        Form::template tile<D::kSigned, D::kMin, D::kHalf>(nc, t, at);
    } else if constexpr (NC > 0) {
        // Codes of up to 7 bits differ only for AVX2's dot; elsewhere one instance serves them all.
        constexpr int kBits = Tiles::kBitsMatter ? D::kBits : 8;
        if (nc == NC) return Form::template tile<kBits, D::kSigned, D::kMin, D::kHalf, NC>(t, at);
        wide_n<D, NC - 1>(nc, t, at);
    }
}

/// Runs call over a chunk's columns in steps of a tile: as even as they come, or full ones and a rest where a tile costs the
/// same whatever it holds.
template <class D, class Call>
QUERN_INLINE void tile_steps(std::uint32_t n, Call call) {
    if constexpr (WideForm<D::kSigned>::kAnyCount) {
        for (std::uint32_t c = 0; c < n; c += Tiles::kCols) call(c, static_cast<int>(n - c < Tiles::kCols ? n - c : Tiles::kCols));
    } else {
        even_steps<Tiles::kCols>(n, call);
    }
}

template <class D>
QUERN_INLINE void decode_slice(const MatmulArgs& a, std::uint32_t p0, std::size_t b0, int n) {
    using W = Wide<D>;
    using Form = WideForm<D::kSigned>;
    for (int p = 0; p < W::kPanels; ++p) {
        const std::byte* panel = a.w + (p0 + static_cast<std::uint32_t>(p)) * a.panel_stride;
        for (int i = 0; i < n; ++i) {
            const std::size_t b = b0 + static_cast<std::size_t>(i);
            U8x64 w[8];
            D::codes(panel, b, w);
            const std::size_t at = (static_cast<std::size_t>(i) * W::kPanels + static_cast<std::size_t>(p)) * Form::kBytes;
            Form::put(a.scratch + at, w);
            float* scales = reinterpret_cast<float*>(a.scratch + W::kScaleAt) + (i * W::kPanels + p) * W::kGroups * 16;
            float* mins = scales + (W::kMinAt - W::kScaleAt) / sizeof(float);
            QUERN_UNROLL_N(2)
            for (int h = 0; h < W::kGroups; ++h) {
                f_store(scales + 16 * h, D::scale(panel, b, h));
                if constexpr (D::kMin) f_store(mins + 16 * h, D::min(panel, b, h));
            }
        }
    }
}

/// What the wide path decodes after the present slice, fetched a little at each tile so that decoding does not wait for
/// memory.
template <class D>
struct Next {
    const std::byte* from;
    std::size_t panel_stride, bytes;

    /// The share of columns [c, c + nc) of `chunk`.
    QUERN_INLINE_MEMBER void fetch(std::uint32_t c, int nc, int chunk) const {
        const std::size_t begin = bytes * c / static_cast<std::size_t>(chunk) & ~std::size_t{63};
        const std::size_t end = bytes * (c + static_cast<std::size_t>(nc)) / static_cast<std::size_t>(chunk);
        for (int p = 0; p < Tiles::kPanels; ++p)
            for (std::size_t i = begin; i < end; i += 64)
                __builtin_prefetch(from + static_cast<std::size_t>(p) * panel_stride + i, 0, 2);
    }
};

/// n_tiles times kPanels panels from p0 on. Chunks of columns outside, then slices of k, then panels, then columns: the
/// chunk's slice stays in the L2 cache for all panels, a panel's decoded slice in L1 for all columns.
template <class D>
static void wide(const MatmulArgs& a, std::uint32_t p0, int n_tiles) {
    using W = Wide<D>;
    [[maybe_unused]] const typename WideForm<D::kSigned>::template Use<D::kHalf> use;
    const ActLayout act(a.n_k);
    float* sums = reinterpret_cast<float*>(a.scratch + W::kSumsAt);
    const auto sums_of = [&](int i) __attribute__((always_inline)) { return sums + std::size_t{kChunk} * W::kPanels * 16 * static_cast<std::size_t>(i); };
    even_steps<kChunk>(a.n_cols, [&](std::uint32_t c0, int chunk) __attribute__((always_inline)) {
        for (int i = 0; i < n_tiles; ++i)
            for (int j = 0; j < chunk * W::kPanels; ++j) f_store(sums_of(i) + 16 * j, f_zero());
        even_steps<kSlice>(a.n_k / 32, [&](std::uint32_t b0, int n) __attribute__((always_inline)) {
            for (int i = 0; i < n_tiles; ++i) {
                const std::uint32_t p = p0 + static_cast<std::uint32_t>(i * Tiles::kPanels);
                decode_slice<D>(a, p, b0, n);
                const bool last = i + 1 == n_tiles;  // past the last block lie the next panels, or nothing that hurts
                const Next<D> next{a.w + (last ? p0 : p + Tiles::kPanels) * a.panel_stride +
                                       (b0 + static_cast<std::size_t>(last ? n : 0)) * D::L::kPerBlock,
                                   a.panel_stride, static_cast<std::size_t>(n) * D::L::kPerBlock};
                tile_steps<D>(static_cast<std::uint32_t>(chunk), [&](std::uint32_t c, int nc)
                              __attribute__((always_inline)) {
                    const Tile t{a.scratch, a.x + (c0 + c) * a.x_stride, a.x_stride, sums_of(i) + c * W::kPanels * 16,
                                 static_cast<int>(b0), n, D::kOffset};
                    next.fetch(c, nc, chunk);
                    wide_n<D, Tiles::kCols>(nc, t, act);
                });
            }
        });
        for (int i = 0; i < n_tiles; ++i)
            put_sums(a, p0 + static_cast<std::uint32_t>(i * Tiles::kPanels), c0, chunk, sums_of(i));
    });
}

template <class D>
static void matmul_quant(const MatmulArgs& a) {
    const std::uint32_t n_panels = (a.n_rows + kLanes - 1) / kLanes;
    std::uint32_t p = 0;
    if (a.n_cols >= Tiles::kWideFrom && a.scratch)
        while (const std::uint32_t n = (n_panels - p) / Tiles::kPanels) {
            const std::uint32_t group = n < kGroup ? n : kGroup;
            wide<D>(a, p, static_cast<int>(group));
            p += group * Tiles::kPanels;
        }
    constexpr std::uint32_t kStreams = Tiles::kStreams;
    if (a.n_cols == 1)
        for (; p + kStreams <= n_panels; p += kStreams) direct_tile<D, 1, kStreams>(a, p, 0);
    constexpr std::uint32_t kPairStreams = Tiles::kPairStreams;
    if (a.n_cols == 2)
        for (; p + kPairStreams <= n_panels; p += kPairStreams) direct_tile<D, 2, kPairStreams>(a, p, 0);
    for (; p < n_panels; ++p) direct<D>(a, p);
}

template <class D>
static std::size_t matmul_quant_scratch(std::uint32_t) {
    return Wide<D>::kBytes;
}

template <class D>
static void unpack_row_quant(const std::byte* panel, std::uint32_t row, std::uint32_t n_k, float* out) {
    constexpr int kGroups = D::kHalf ? 2 : 1;
    for (std::size_t b = 0; b < n_k / 32; ++b) {
        U8x64 w[8];
        D::codes(panel, b, w);
        std::uint8_t codes[8][64];
        __builtin_memcpy(codes, w, sizeof codes);
        for (int h = 0; h < kGroups; ++h) {
            float scale[16], min[16] = {};
            f_store(scale, D::scale(panel, b, h));
            if constexpr (D::kMin) f_store(min, D::min(panel, b, h));
            for (int i = 32 / kGroups * h; i < 32 / kGroups * (h + 1); ++i) {
                const std::uint8_t u = codes[i / 4][4 * row + static_cast<std::uint32_t>(i % 4)];
                const int code = D::kSigned ? static_cast<std::int8_t>(u) : u - D::kOffset;
                const float v = static_cast<float>(code) * scale[row];
                out[b * 32 + static_cast<std::size_t>(i)] = D::kMin ? v + min[row] : v;
            }
        }
    }
}

}  // namespace quern::kernels::QUERN_ISA_NS

#include "kernels/cpu/ops/matmul_float.inl"
