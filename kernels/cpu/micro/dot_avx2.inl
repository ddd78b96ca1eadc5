// SPDX-License-Identifier: Apache-2.0
// The dot product of micro/dot.inl for AVX2: products of narrow codes are added as 16-bit numbers and widened once for
// as many steps as cannot overflow, which takes a third off the instructions of a widening at each step.
#pragma once

namespace quern::kernels::QUERN_ISA_NS {

template <int kBits, bool kSigned, int N>
struct Dot {
    /// maddubs gives at most 2 * (2^kBits - 1) * 127 in magnitude: 762 at 2 bits, 3810 at 4, 7874 at 5, 16002 at 6.
    static constexpr int kRoom = 32767 / (2 * ((1 << kBits) - 1) * 127);
    static constexpr int kRun = kSigned || kRoom < 2 ? 1 : kRoom < 4 ? 2 : kRoom < 8 || N < 8 ? 4 : 8;

    I32x16 sum;
    __m256i lo, hi;  // 16-bit sums of the present run

    inline __attribute__((always_inline)) void begin(I32x16 init) { sum = init; }
    inline __attribute__((always_inline)) void step(int g, U8x64 w, const std::int8_t* x) {
        if constexpr (kRun == 1) {
            sum = kSigned ? i_dot_s8(sum, w, x) : i_dot_u7(sum, w, x);
            return;
        }
        const __m256i b = four_set1(x), one = _mm256_set1_epi16(1);
        const __m256i plo = _mm256_maddubs_epi16(w.lo, b), phi = _mm256_maddubs_epi16(w.hi, b);
        lo = g % kRun == 0 ? plo : _mm256_add_epi16(lo, plo);
        hi = g % kRun == 0 ? phi : _mm256_add_epi16(hi, phi);
        // Else GCC adds the eight products as a tree, keeps all of them at once, and spills.
        asm("" : "+x"(lo), "+x"(hi));
        if (g % kRun == kRun - 1) {
            sum.lo = _mm256_add_epi32(sum.lo, _mm256_madd_epi16(lo, one));
            sum.hi = _mm256_add_epi32(sum.hi, _mm256_madd_epi16(hi, one));
        }
    }
    inline __attribute__((always_inline)) I32x16 end() const { return sum; }
};

}  // namespace quern::kernels::QUERN_ISA_NS
