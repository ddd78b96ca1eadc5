// SPDX-License-Identifier: Apache-2.0
// The vocabulary of avx2.h with the dot product of AVX-VNNI: one VEX instruction where AVX2 takes three.
#pragma once

#define QUERN_SIMD_AVXVNNI 1
#include "kernels/cpu/simd/avx2.h"

/// i_dot_u7 takes any unsigned byte here.
#define QUERN_SIMD_DOT_U8 1

namespace quern::kernels::QUERN_ISA_NS {

QUERN_INLINE U8x64 u_xor(U8x64 a, U8x64 b) { return {_mm256_xor_si256(a.lo, b.lo), _mm256_xor_si256(a.hi, b.hi)}; }
QUERN_INLINE I32x16 i_dot_u7(I32x16 acc, U8x64 w, const std::int8_t* x) {
    const __m256i b = four_set1(x);
    return {_mm256_dpbusd_avx_epi32(acc.lo, w.lo, b), _mm256_dpbusd_avx_epi32(acc.hi, w.hi, b)};
}
/// |w| * (x with w's sign), as in avx2.h; types with signed codes shift them while decoding instead.
QUERN_INLINE I32x16 i_dot_s8(I32x16 acc, U8x64 w, const std::int8_t* x) {
    const __m256i b = four_set1(x);
    return {_mm256_dpbusd_avx_epi32(acc.lo, _mm256_abs_epi8(w.lo), _mm256_sign_epi8(b, w.lo)),
            _mm256_dpbusd_avx_epi32(acc.hi, _mm256_abs_epi8(w.hi), _mm256_sign_epi8(b, w.hi))};
}

}  // namespace quern::kernels::QUERN_ISA_NS
