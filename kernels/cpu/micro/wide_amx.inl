// SPDX-License-Identifier: Apache-2.0
// The wide tile of AMX: one multiplication gives a block's 16 rows x 16 columns of integer sums, which are scaled and added
// up in 16 registers as everywhere. That costs three instructions a column and block on two ports, 24 cycles for the 8 that
// the multiplication takes: float scales bound this form at a third of the AMX peak, 3.4 times what VNNI's own bound is.
// Sums of the next block are on their way through memory while those of the present one are scaled.
#pragma once

#include "kernels/cpu/micro/amx_tiles.h"

namespace quern::kernels::QUERN_ISA_NS {

template <bool kSigned, bool kMin, bool kHalf>
static void amx_tile(int nc, const Tile& t, const ActLayout& at);

struct AmxForm {
    static constexpr std::size_t kBytes = 512;
    static constexpr bool kAnyCount = true;
    template <bool kHalf>
    struct Use : TilesInUse {
        inline __attribute__((always_inline)) Use() : TilesInUse(kHalf ? 16 : 32) {}
    };
    QUERN_MEMBER void put(std::byte* to, const U8x64* w) { PlainForm::put(to, w); }
    template <bool kSigned, bool kMin, bool kHalf>
    QUERN_MEMBER void tile(int nc, const Tile& t, const ActLayout& at) { amx_tile<kSigned, kMin, kHalf>(nc, t, at); }
};

template <bool kSigned> using WideForm = AmxForm;

template <bool kSigned, bool kMin, bool kHalf>
static void amx_tile(int nc, const Tile& t, const ActLayout& at) {
    constexpr int NP = Tiles::kPanels, NC = 16, kGroups = kHalf ? 2 : 1, kBytes = 32 / kGroups;
    static_assert(Tiles::kCols == NC);
    Side<kMin, kHalf, NC> side;
    side.load(t.x, t.x_stride, at, t.b0, t.n, t.offset, nc);
    const std::byte* x = t.x + t.b0 * 32;
    std::size_t stride = t.x_stride;
    alignas(64) std::byte few[NC][kSlice * 32];
    if (nc < NC) {   // a tile reads 16 columns
        for (int c = 0; c < NC; ++c) __builtin_memcpy(few[c], x + static_cast<std::size_t>(c < nc ? c : nc - 1) * stride, static_cast<std::size_t>(t.n) * 32);
        x = few[0];
        stride = sizeof few[0];
    }
    alignas(64) std::int32_t out[2][NC][16];
    const int n = t.n * kGroups;
    for (int p = 0; p < NP; ++p) {
        const float* scales = reinterpret_cast<const float*>(t.scratch + kSlice * NP * 512) + p * kGroups * 16;
        const float* mins = scales + kSlice * NP * kGroups * 16;
        const auto dot = [&](int i) __attribute__((always_inline)) {
            const std::byte* w = t.scratch + (i / kGroups * NP + p) * 512 + i % kGroups * (512 / kGroups);
            const std::byte* q = x + i * kBytes;
            if (i % 2) tile_products<kSigned, 1>(q, stride, w, out[1][0]);
            else tile_products<kSigned, 0>(q, stride, w, out[0][0]);
        };
        F32x16 acc[NC];
        QUERN_UNROLL_N(16)
        for (int c = 0; c < NC; ++c) acc[c] = c < nc ? f_load(t.sums + (c * NP + p) * 16) : f_zero();
        dot(0);
        for (int i = 0; i < n; ++i) {
            if (i + 1 < n) dot(i + 1);
            if (p == 0 && i % (2 * kGroups) == 0)   // a line of each of the next tile's columns
                for (int c = 0; c < nc; ++c) __builtin_prefetch(t.x + static_cast<std::size_t>(nc + c) * t.x_stride + t.b0 * 32 + i * kBytes);
            const int at_scale = (i / kGroups * NP * kGroups + i % kGroups) * 16;
            const F32x16 scale = f_load(scales + at_scale);
            QUERN_UNROLL_N(16)
            for (int c = 0; c < NC; ++c) {
                I32x16 sum = _mm512_load_si512(out[i % 2][c]);
                if constexpr (!kMin && !kSigned) sum = i_add(sum, i_set1(side.init[c][i]));
                acc[c] = f_fma(f_from_i(sum), f_mul(scale, f_set1(side.d[c][i / kGroups])), acc[c]);
            }
            if constexpr (kMin) {
                const F32x16 min = f_load(mins + at_scale);
                QUERN_UNROLL_N(16)
                for (int c = 0; c < NC; ++c) acc[c] = f_fma(min, f_set1(side.ds[c][i]), acc[c]);
            }
        }
        for (int c = 0; c < nc; ++c) f_store(t.sums + (c * NP + p) * 16, acc[c]);
    }
}

}  // namespace quern::kernels::QUERN_ISA_NS
