// SPDX-License-Identifier: Apache-2.0
// Matrix times columns for F32, F16 and BF16 weights: one multiply-add a value, k ascending.
#pragma once

namespace quern::kernels::QUERN_ISA_NS {

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
#pragma GCC unroll 16
    for (int c = 0; c < NC; ++c)
#pragma GCC unroll 4
        for (int p = 0; p < NP; ++p) acc[c][p] = f_zero();
    for (std::size_t k = 0; k < a.n_k; ++k) {
        F32x16 w[NP];
#pragma GCC unroll 4
        for (int p = 0; p < NP; ++p) {
            const std::byte* at = panel + static_cast<std::size_t>(p) * a.panel_stride + k * kStep;
            __builtin_prefetch(at + kAhead);
            w[p] = E::load(at);
        }
#pragma GCC unroll 16
        for (int c = 0; c < NC; ++c) {
            const float* xc = reinterpret_cast<const float*>(x + static_cast<std::size_t>(c) * a.x_stride);
            const F32x16 v = f_set1(xc[k]);
#pragma GCC unroll 4
            for (int p = 0; p < NP; ++p) acc[c][p] = f_fma(w[p], v, acc[c][p]);
        }
    }
    for (int p = 0; p < NP; ++p) {
        const std::uint32_t at = p0 + static_cast<std::uint32_t>(p);
        const float* bias = a.bias ? a.bias + at * kLanes : nullptr;
        for (int c = 0; c < NC; ++c)
            put_result(y_at(a, at, c0 + static_cast<std::uint32_t>(c)), acc[c][p], rows_in_panel(a, at), bias, a.add);
    }
}

template <class E, int NP, int NC>
QUERN_INLINE void float_n(int nc, const MatmulArgs& a, std::uint32_t p, std::uint32_t c) {
    if constexpr (NC > 0) {
        if (nc == NC) return float_tile<E, NP, NC>(a, p, c);
        float_n<E, NP, NC - 1>(nc, a, p, c);
    }
}

template <class E>
static void matmul_float(const MatmulArgs& a) {
    const std::uint32_t n_panels = (a.n_rows + kLanes - 1) / kLanes;
    std::uint32_t p = 0;
    if (a.n_cols == 1) {  // a chain of multiply-adds has latency: several panels at once hide it
        for (; p + 4 <= n_panels; p += 4) float_tile<E, 4, 1>(a, p, 0);
    } else {
        for (; p + Tiles::kPanels <= n_panels; p += Tiles::kPanels)
            even_steps<Tiles::kFloatCols>(a.n_cols, [&](std::uint32_t c, int nc) __attribute__((always_inline)) {
                float_n<E, Tiles::kPanels, Tiles::kFloatCols>(nc, a, p, c);
            });
    }
    for (; p < n_panels; ++p)
        even_steps<Tiles::kFloatCols>(a.n_cols, [&](std::uint32_t c, int nc) __attribute__((always_inline)) {
            float_n<E, 1, Tiles::kFloatCols>(nc, a, p, c);
        });
}

static std::size_t no_scratch(std::uint32_t) { return 0; }

template <class E>
static void unpack_row_float(const std::byte* panel, std::uint32_t row, std::uint32_t n_k, float* out) {
    for (std::size_t k = 0; k < n_k; ++k) {
        float lanes[16];
        f_store(lanes, E::load(panel + k * kLanes * E::kBytes));
        out[k] = lanes[row];
    }
}

}  // namespace quern::kernels::QUERN_ISA_NS
