// SPDX-License-Identifier: Apache-2.0
// Matrix times columns for F32, F16 and BF16 weights: one multiply-add a value, k ascending. Weights that
// meet many columns are widened into scratch once, slice by slice.
#pragma once

namespace quern::kernels::QUERN_ISA_NS {

constexpr int kFloatSlice = 128;
/// Columns from which widening pays: at 24 it costs a tenth, at 48 it gains 2%, from 64 on 7% (Emerald Rapids).
constexpr std::uint32_t kWidenFrom = 48;

struct LoadF32 {
    static constexpr std::size_t kBytes = 4;
    QUERN_MEMBER F32x16 load(const std::byte* p) { return f_load(reinterpret_cast<const float*>(p)); }
};
struct LoadF16 {
    static constexpr std::size_t kBytes = 2;
    QUERN_MEMBER F32x16 load(const std::byte* p) { return f_load_f16(p); }
};
struct LoadBF16 {
    static constexpr std::size_t kBytes = 2;
    QUERN_MEMBER F32x16 load(const std::byte* p) { return f_load_bf16(p); }
};

template <class E, int NP, int NC>
static void float_tile(const MatmulArgs& a, std::uint32_t p0, std::uint32_t c0) {
    constexpr std::size_t kStep = kLanes * E::kBytes;
    const std::byte* panel = a.w + p0 * a.panel_stride;
    const std::byte* x = a.x + c0 * a.x_stride;
    F32x16 acc[NC][NP];
    QUERN_UNROLL_N(16)
    for (int c = 0; c < NC; ++c)
        QUERN_UNROLL_N(4)
        for (int p = 0; p < NP; ++p) acc[c][p] = f_zero();
    for (std::size_t k = 0; k < a.n_k; ++k) {
        F32x16 w[NP];
        QUERN_UNROLL_N(4)
        for (int p = 0; p < NP; ++p) {
            const std::byte* from = panel + static_cast<std::size_t>(p) * a.panel_stride;
            __builtin_prefetch(ahead(from, k * kStep, a.panel_stride, NP));
            w[p] = E::load(from + k * kStep);
        }
        QUERN_UNROLL_N(16)
        for (int c = 0; c < NC; ++c) {
            const float* xc = reinterpret_cast<const float*>(x + static_cast<std::size_t>(c) * a.x_stride);
            const F32x16 v = f_set1(xc[k]);
            QUERN_UNROLL_N(4)
            for (int p = 0; p < NP; ++p) acc[c][p] = f_fma(w[p], v, acc[c][p]);
        }
    }
    for (int p = 0; p < NP; ++p) {
        const std::uint32_t at = p0 + static_cast<std::uint32_t>(p);
        for (int c = 0; c < NC; ++c)
            Place(a, at, c0 + static_cast<std::uint32_t>(c)).put(acc[c][p], rows_in_panel(a, at));
    }
}

template <class E, int NP, int NC>
QUERN_INLINE void float_n(int nc, const MatmulArgs& a, std::uint32_t p, std::uint32_t c) {
    if constexpr (NC > 0) {
        if (nc == NC) return float_tile<E, NP, NC>(a, p, c);
        float_n<E, NP, NC - 1>(nc, a, p, c);
    }
}

template <class E, int NP>
QUERN_INLINE void float_direct(const MatmulArgs& a, std::uint32_t p) {
    even_steps<Tiles::kFloatCols>(a.n_cols, [&](std::uint32_t c, int nc) __attribute__((always_inline)) {
        float_n<E, NP, Tiles::kFloatCols>(nc, a, p, c);
    });
}

/// n values of k: w[k][kPanels][16] times NC columns, onto sums [NC][kPanels][16].
template <int NC>
static void float_slice_tile(const float* w, const std::byte* x, std::size_t x_stride, int n, float* sums) {
    constexpr int NP = Tiles::kPanels;
    F32x16 acc[NC][NP];
    QUERN_UNROLL_N(16)
    for (int c = 0; c < NC; ++c)
        QUERN_UNROLL_N(4)
        for (int p = 0; p < NP; ++p) acc[c][p] = f_load(sums + (c * NP + p) * 16);
    // Three columns a pointer, at 0, 1 and 2 strides: a pointer a column is more than there are registers.
    const std::byte* at[(NC + 2) / 3];
    QUERN_UNROLL_N(6)
    for (int i = 0; i < (NC + 2) / 3; ++i) {
        at[i] = x + static_cast<std::size_t>(3 * i) * x_stride;
        asm("" : "+r"(at[i]));
    }
    for (int k = 0; k < n; ++k, w += NP * 16) {
        F32x16 v[NP];
        QUERN_UNROLL_N(4)
        for (int p = 0; p < NP; ++p) v[p] = f_load(w + p * 16);
        QUERN_UNROLL_N(16)
        for (int c = 0; c < NC; ++c) {
            const F32x16 xc = f_set1(*reinterpret_cast<const float*>(at[c / 3] + static_cast<std::size_t>(c % 3) * x_stride));
            QUERN_UNROLL_N(4)
            for (int p = 0; p < NP; ++p) acc[c][p] = f_fma(v[p], xc, acc[c][p]);
        }
        QUERN_UNROLL_N(6)
        for (int i = 0; i < (NC + 2) / 3; ++i) {
            at[i] += 4;
            asm("" : "+r"(at[i]));
        }
    }
    QUERN_UNROLL_N(16)
    for (int c = 0; c < NC; ++c)
        QUERN_UNROLL_N(4)
        for (int p = 0; p < NP; ++p) f_store(sums + (c * NP + p) * 16, acc[c][p]);
}

template <int NC>
QUERN_INLINE void float_slice_n(int nc, const float* w, const std::byte* x, std::size_t x_stride, int n, float* sums) {
    if constexpr (NC > 0) {
        if (nc == NC) return float_slice_tile<NC>(w, x, x_stride, n, sums);
        float_slice_n<NC - 1>(nc, w, x, x_stride, n, sums);
    }
}

/// Scratch: sums [kGroup][kChunk][kPanels][16] | widened slice [kFloatSlice][kPanels][16].
constexpr std::size_t kFloatSums = std::size_t{kGroup} * kChunk * Tiles::kPanels * 64;
constexpr std::size_t kWidened = std::size_t{kFloatSlice} * Tiles::kPanels * 64;

/// As wide() for the quantized types: the columns' slice stays in L2 for all panels, the widened weights in L1.
template <class E>
static void float_wide(const MatmulArgs& a, std::uint32_t p0, int n_tiles) {
    constexpr int NP = Tiles::kPanels;
    float* sums = reinterpret_cast<float*>(a.scratch);
    float* widened = reinterpret_cast<float*>(a.scratch + kFloatSums);
    const auto sums_of = [&](int i) __attribute__((always_inline)) { return sums + std::size_t{kChunk} * NP * 16 * static_cast<std::size_t>(i); };
    even_steps<kChunk>(a.n_cols, [&](std::uint32_t c0, int chunk) __attribute__((always_inline)) {
        for (int i = 0; i < n_tiles; ++i)
            for (int j = 0; j < chunk * NP; ++j) f_store(sums_of(i) + 16 * j, f_zero());
        even_steps<kFloatSlice>(a.n_k, [&](std::uint32_t k0, int n) __attribute__((always_inline)) {
            for (int i = 0; i < n_tiles; ++i) {
                const std::byte* panel = a.w + (p0 + static_cast<std::uint32_t>(i * NP)) * a.panel_stride + std::size_t{k0} * kLanes * E::kBytes;
                for (int p = 0; p < NP; ++p)
                    for (int k = 0; k < n; ++k) {
                        const std::byte* from = panel + static_cast<std::size_t>(p) * a.panel_stride + static_cast<std::size_t>(k) * kLanes * E::kBytes;
                        __builtin_prefetch(from + kAhead);
                        f_store(widened + (k * NP + p) * 16, E::load(from));
                    }
                even_steps<Tiles::kFloatCols>(static_cast<std::uint32_t>(chunk), [&](std::uint32_t c, int nc)
                                              __attribute__((always_inline)) {
                    float_slice_n<Tiles::kFloatCols>(nc, widened, a.x + (c0 + c) * a.x_stride + k0 * sizeof(float),
                                                     a.x_stride, n, sums_of(i) + c * NP * 16);
                });
            }
        });
        for (int i = 0; i < n_tiles; ++i)
            put_sums(a, p0 + static_cast<std::uint32_t>(i * NP), c0, chunk, sums_of(i));
    });
}

template <class E>
static void matmul_float(const MatmulArgs& a) {
    const std::uint32_t n_panels = (a.n_rows + kLanes - 1) / kLanes;
    std::uint32_t p = 0;
    if (a.n_cols == 1) {  // a chain of multiply-adds has latency: several panels at once hide it
        for (; p + 4 <= n_panels; p += 4) float_tile<E, 4, 1>(a, p, 0);
    } else {
        if (a.n_cols >= kWidenFrom && a.scratch)
            while (const std::uint32_t n = (n_panels - p) / Tiles::kPanels) {
                const std::uint32_t group = n < kGroup ? n : kGroup;
                float_wide<E>(a, p, static_cast<int>(group));
                p += group * Tiles::kPanels;
            }
        for (; p + Tiles::kPanels <= n_panels; p += Tiles::kPanels) float_direct<E, Tiles::kPanels>(a, p);
    }
    for (; p < n_panels; ++p) float_direct<E, 1>(a, p);
}

template <class E>
static std::size_t matmul_float_scratch(std::uint32_t) {
    return kFloatSums + kWidened;
}

template <class E>
static void unpack_row_float(const std::byte* panel, std::uint32_t row, std::uint32_t n_k, float* out) {
    for (std::size_t k = 0; k < n_k; ++k) {
        float lanes[16];
        f_store(lanes, E::load(panel + k * kLanes * E::kBytes));
        out[k] = lanes[row];
    }
}

}  // namespace quern::kernels::QUERN_ISA_NS
