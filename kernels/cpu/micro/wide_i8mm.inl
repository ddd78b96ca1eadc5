// SPDX-License-Identifier: Apache-2.0
// The wide tile for Arm's int8 matrix extension: SMMLA multiplies 2 rows x 8 values with 8 values x 2 columns, twice the
// products of an SDOT. A tile takes 8 rows x up to 6 columns at a time: 12 registers for float sums, 12 for int sums, 6
// for activations, 1 for codes. Sums of a tile are 2 x 2: lanes row 0 column 0, row 0 column 1, row 1 column 0, ....
#pragma once

namespace quern::kernels::QUERN_ISA_NS {

template <bool kMin, bool kHalf, int NC>
static void matrix_tile(const Tile& t, const ActLayout& at);

struct MatrixForm {
    static constexpr std::size_t kBytes = 512;
    static constexpr bool kAnyCount = false;
    template <bool kHalf> using Use = PlainForm::Use<kHalf>;
    /// [half of 8 rows][8 values][pair of rows][row][value]; codes of at most 127 mean the same signed and unsigned.
    QUERN_MEMBER void put(std::byte* to, const U8x64* w) {
        QUERN_UNROLL_N(4)
        for (int j = 0; j < 4; ++j) {
            std::uint8_t* at = reinterpret_cast<std::uint8_t*>(to) + 64 * j;
            QUERN_UNROLL_N(4)
            for (int q = 0; q < 4; ++q, at += q == 2 ? 256 - 32 : 32) {
                const uint32x4_t a = vreinterpretq_u32_u8(w[2 * j].v[q]), b = vreinterpretq_u32_u8(w[2 * j + 1].v[q]);
                vst1q_u8(at, vreinterpretq_u8_u32(vzip1q_u32(a, b)));
                vst1q_u8(at + 16, vreinterpretq_u8_u32(vzip2q_u32(a, b)));
            }
        }
    }
    template <int kBits, bool kSigned, bool kMin, bool kHalf, int NC>
    QUERN_MEMBER void tile(const Tile& t, const ActLayout& at) { matrix_tile<kMin, kHalf, NC>(t, at); }
};

template <bool kSigned> using WideForm = MatrixForm;

/// Two columns' numbers side by side, so that one load gives (a, b, a, b).
template <int kPairs, int kCount, class T>
struct ColumnPairs {
    alignas(16) T v[kPairs][kCount][2];

    template <int NC>
    QUERN_INLINE_MEMBER void set(const T (*columns)[kCount], int n) {
        for (int c = 0; c < 2 * kPairs; ++c)
            for (int i = 0; i < n; ++i) v[c / 2][i][c % 2] = columns[c < NC ? c : NC - 1][i];
    }
    QUERN_INLINE_MEMBER int32x4_t at(int pair, int i) const {
        std::int64_t both;
        __builtin_memcpy(&both, v[pair][i], 8);
        return vreinterpretq_s32_s64(vdupq_n_s64(both));
    }
};

/// Rows [8 half, 8 half + 8) of two columns' sums, to and from 2 x 2 order. The second column may be the first again.
QUERN_INLINE void load_pairs(const float* a, const float* b, float32x4_t* acc) {
    QUERN_UNROLL_N(2)
    for (int q = 0; q < 2; ++q) {
        const float32x4_t x = vld1q_f32(a + 4 * q), y = vld1q_f32(b + 4 * q);
        acc[2 * q] = vzip1q_f32(x, y);
        acc[2 * q + 1] = vzip2q_f32(x, y);
    }
}
QUERN_INLINE void store_pairs(float* a, float* b, const float32x4_t* acc) {
    QUERN_UNROLL_N(2)
    for (int q = 0; q < 2; ++q) {
        vst1q_f32(b + 4 * q, vuzp2q_f32(acc[2 * q], acc[2 * q + 1]));
        vst1q_f32(a + 4 * q, vuzp1q_f32(acc[2 * q], acc[2 * q + 1]));
    }
}
/// Numbers of eight rows, each twice: (row 0, row 0, row 1, row 1), ....
QUERN_INLINE void load_twice(const float* p, float32x4_t* out) {
    const float32x4_t a = vld1q_f32(p), b = vld1q_f32(p + 4);
    out[0] = vzip1q_f32(a, a);
    out[1] = vzip2q_f32(a, a);
    out[2] = vzip1q_f32(b, b);
    out[3] = vzip2q_f32(b, b);
}

template <bool kMin, bool kHalf, int NC>
static void matrix_tile(const Tile& t, const ActLayout& at) {
    static_assert(Tiles::kPanels == 1);
    constexpr int kGroups = kHalf ? 2 : 1, kTwice = 2 / kGroups, P = (NC + 1) / 2, kSides = kSlice * kGroups;
    Side<kMin, kHalf, NC> side;
    side.load(t.x, t.x_stride, at, t.b0, t.n, t.offset);
    ColumnPairs<P, kSlice, float> d;
    d.template set<NC>(side.d, t.n);
    ColumnPairs<kMin ? P : 1, kSides, float> ds;
    ColumnPairs<kMin ? 1 : P, kSides, std::int32_t> init;
    if constexpr (kMin) {
        ds.template set<NC>(side.ds, t.n * kGroups);
    } else {
        init.template set<NC>(side.init, t.n * kGroups);
    }
    const std::int8_t* q = reinterpret_cast<const std::int8_t*>(t.x) + t.b0 * 32;
    const float* scale_at = reinterpret_cast<const float*>(t.scratch + kSlice * MatrixForm::kBytes);
    const float* min_at = scale_at + kSlice * kGroups * 16;
    const auto column = [](int c) { return static_cast<std::size_t>(c < NC ? c : NC - 1); };
    for (int half = 0; half < 2; ++half) {
        const std::int8_t* codes = reinterpret_cast<const std::int8_t*>(t.scratch) + 256 * half;
        float* sums = t.sums + 8 * half;
        float32x4_t acc[P][4];
        QUERN_UNROLL_N(4)
        for (int c = 0; c < P; ++c) load_pairs(sums + column(2 * c) * 16, sums + column(2 * c + 1) * 16, acc[c]);
        for (int b = 0; b < t.n; ++b, codes += MatrixForm::kBytes) {
            QUERN_UNROLL_N(2)
            for (int h = 0; h < kGroups; ++h) {
                const int i = b * kGroups + h;
                int32x4_t sum[P][4];
                QUERN_UNROLL_N(4)
                for (int c = 0; c < P; ++c)
                    QUERN_UNROLL_N(4)
                    for (int r = 0; r < 4; ++r) sum[c][r] = kMin ? vdupq_n_s32(0) : init.at(c, i);
                QUERN_UNROLL_N(2)
                for (int k = h * kTwice; k < (h + 1) * kTwice; ++k) {
                    int8x16_t x[2][P];  // 8 values of two columns, twice
                    QUERN_UNROLL_N(4)
                    for (int c = 0; c < P; ++c) {
                        const std::int8_t* at_k = q + b * 32 + k * 16;
                        const int64x2_t x0 = vreinterpretq_s64_s8(vld1q_s8(at_k + column(2 * c) * t.x_stride));
                        const int64x2_t x1 = vreinterpretq_s64_s8(vld1q_s8(at_k + column(2 * c + 1) * t.x_stride));
                        x[0][c] = vreinterpretq_s8_s64(vzip1q_s64(x0, x1));
                        x[1][c] = vreinterpretq_s8_s64(vzip2q_s64(x0, x1));
                    }
                    QUERN_UNROLL_N(2)
                    for (int j = 0; j < 2; ++j) {
                        QUERN_UNROLL_N(4)
                        for (int r = 0; r < 4; ++r) {
                            const int8x16_t w = vld1q_s8(codes + 128 * k + 64 * j + 16 * r);
                            QUERN_UNROLL_N(4)
                            for (int c = 0; c < P; ++c) sum[c][r] = vmmlaq_s32(sum[c][r], w, x[j][c]);
                        }
                    }
                }
                float32x4_t scale[4], min[4];
                load_twice(scale_at + i * 16 + 8 * half, scale);
                if constexpr (kMin) load_twice(min_at + i * 16 + 8 * half, min);
                QUERN_UNROLL_N(4)
                for (int c = 0; c < P; ++c) {
                    const float32x4_t dc = vreinterpretq_f32_s32(d.at(c, b));
                    QUERN_UNROLL_N(4)
                    for (int r = 0; r < 4; ++r)
                        acc[c][r] = vfmaq_f32(acc[c][r], vcvtq_f32_s32(sum[c][r]), vmulq_f32(scale[r], dc));
                    if constexpr (kMin) {
                        const float32x4_t s = vreinterpretq_f32_s32(ds.at(c, i));
                        QUERN_UNROLL_N(4)
                        for (int r = 0; r < 4; ++r) acc[c][r] = vfmaq_f32(acc[c][r], min[r], s);
                    }
                }
            }
        }
        QUERN_UNROLL_N(4)
        for (int c = 0; c < P; ++c) store_pairs(sums + column(2 * c) * 16, sums + column(2 * c + 1) * 16, acc[c]);
    }
}

}  // namespace quern::kernels::QUERN_ISA_NS
