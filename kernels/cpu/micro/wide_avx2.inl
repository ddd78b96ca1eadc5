// SPDX-License-Identifier: Apache-2.0
// Signed codes on AVX2. Their byte products fill 16 bits, two of them cannot be added there, and giving the activations
// the codes' signs costs an instruction a product. So both sides are widened to 16 bits, the codes when a slice is
// decoded, the activations when a tile begins: 16 products then take one vpmaddwd and one vpaddd.
#pragma once

namespace quern::kernels::QUERN_ISA_NS {

template <bool kMin, bool kHalf, int NC>
static void signed_tile(const Tile& t, const ActLayout& at);

struct SignedForm {
    static constexpr std::size_t kBytes = 1024;
    static constexpr bool kAnyCount = false;
    template <bool kHalf> using Use = PlainForm::Use<kHalf>;
    /// Lane = row as before; vector 2 g holds values 4 g, 4 g + 1, vector 2 g + 1 values 4 g + 2, 4 g + 3.
    QUERN_MEMBER void put(std::byte* to, const U8x64* w) {
        QUERN_UNROLL_N(8)
        for (int g = 0; g < 8; ++g) {
            put_half(to + 128 * g, w[g].lo);
            put_half(to + 128 * g + 32, w[g].hi);
        }
    }
    QUERN_MEMBER void put_half(std::byte* to, __m256i w) {
        const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8), odd = _mm256_srai_epi16(w, 8);
        const __m256i first = _mm256_blend_epi16(even, _mm256_slli_epi32(odd, 16), 0xaa);
        const __m256i second = _mm256_blend_epi16(_mm256_srli_epi32(even, 16), odd, 0xaa);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), first);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 64), second);
    }
    template <int kBits, bool kSigned, bool kMin, bool kHalf, int NC>
    QUERN_MEMBER void tile(const Tile& t, const ActLayout& at) { signed_tile<kMin, kHalf, NC>(t, at); }
};

template <bool kSigned> struct WideFormOf { using Type = PlainForm; };
template <> struct WideFormOf<true> { using Type = SignedForm; };
template <bool kSigned> using WideForm = typename WideFormOf<kSigned>::Type;

/// `steps` times two values from w and from NC columns x[c], added to sum.
template <int kSteps, int NC>
QUERN_INLINE void madd_steps(const std::byte* w, const std::int16_t* x, std::size_t stride, I32x16* sum) {
    QUERN_UNROLL_N(16)
    for (int j = 0; j < kSteps; ++j) {
        const U8x64 v = u_load(w + 64 * j);
        QUERN_UNROLL_N(16)
        for (int c = 0; c < NC; ++c) {
            const __m256i b = four_set1(reinterpret_cast<const std::int8_t*>(x + static_cast<std::size_t>(c) * stride + 2 * j));
            sum[c].lo = _mm256_add_epi32(sum[c].lo, _mm256_madd_epi16(v.lo, b));
            sum[c].hi = _mm256_add_epi32(sum[c].hi, _mm256_madd_epi16(v.hi, b));
            asm("" : "+x"(sum[c].lo), "+x"(sum[c].hi));  // as in dot_avx2.inl: no tree of sums
        }
    }
}

template <bool kMin, bool kHalf, int NC>
static void signed_tile(const Tile& t, const ActLayout& at) {
    static_assert(Tiles::kPanels == 1 && !kMin);
    constexpr int kGroups = kHalf ? 2 : 1;
    constexpr std::size_t kStride = kSlice * 32;
    alignas(64) std::int16_t x[NC][kStride];
    for (int c = 0; c < NC; ++c) {
        const std::byte* q = t.x + static_cast<std::size_t>(c) * t.x_stride + t.b0 * 32;
        for (int i = 0; i < t.n * 32; i += 16) {
            const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(q + i));
            _mm256_store_si256(reinterpret_cast<__m256i*>(x[c] + i), _mm256_cvtepi8_epi16(bytes));
        }
    }
    Side<kMin, kHalf, NC> side;
    side.load(t.x, t.x_stride, at, t.b0, t.n, t.offset);
    F32x16 acc[NC];
    QUERN_UNROLL_N(16)
    for (int c = 0; c < NC; ++c) acc[c] = f_load(t.sums + c * 16);
    const std::byte* codes = t.scratch;
    const float* scales = reinterpret_cast<const float*>(t.scratch + kSlice * SignedForm::kBytes);
    const std::byte* next = t.x + t.b0 * 32 + NC * t.x_stride;
    for (int b = 0; b < t.n; ++b) {
        QUERN_UNROLL_N(16)
        for (int c = 0; c < NC; ++c) __builtin_prefetch(next + 32 * b + static_cast<std::size_t>(c) * t.x_stride);
        QUERN_UNROLL_N(2)
        for (int h = 0; h < kGroups; ++h) {
            I32x16 sum[NC];
            QUERN_UNROLL_N(16)
            for (int c = 0; c < NC; ++c) sum[c] = i_set1(side.init[c][b * kGroups + h]);
            madd_steps<16 / kGroups, NC>(codes + h * 512, x[0] + b * 32 + h * 16, kStride, sum);
            const F32x16 scale = f_load(scales + h * 16);
            QUERN_UNROLL_N(16)
            for (int c = 0; c < NC; ++c) acc[c] = f_fma(f_from_i(sum[c]), f_mul(scale, f_set1(side.d[c][b])), acc[c]);
        }
        codes += SignedForm::kBytes;
        scales += kGroups * 16;
    }
    QUERN_UNROLL_N(16)
    for (int c = 0; c < NC; ++c) f_store(t.sums + c * 16, acc[c]);
}

}  // namespace quern::kernels::QUERN_ISA_NS
