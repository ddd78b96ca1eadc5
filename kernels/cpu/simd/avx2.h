// SPDX-License-Identifier: Apache-2.0
// The vocabulary of scalar.h on two 256-bit registers a value: lanes 0..7 and 8..15. Needs AVX2, FMA, F16C and BMI2.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace quern::kernels::QUERN_ISA_NS {

struct F32x16 { __m256 lo, hi; };
struct I32x16 { __m256i lo, hi; };
struct U8x64 { __m256i lo, hi; };

#define QUERN_INLINE static inline __attribute__((always_inline))

QUERN_INLINE float bits_f32(std::uint32_t u) { float f; __builtin_memcpy(&f, &u, 4); return f; }
QUERN_INLINE std::uint32_t f32_bits(float f) { std::uint32_t u; __builtin_memcpy(&u, &f, 4); return u; }
QUERN_INLINE float fma1(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

// --- float lanes ---
/// All ones in the lanes first + i < n.
QUERN_INLINE __m256i lanes_n(int first, int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n - first), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
QUERN_INLINE F32x16 f_set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
QUERN_INLINE F32x16 f_zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
QUERN_INLINE F32x16 f_load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
QUERN_INLINE void f_store(float* p, F32x16 a) {
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}
QUERN_INLINE F32x16 f_load_n(const float* p, int n) {
    return {_mm256_maskload_ps(p, lanes_n(0, n)), _mm256_maskload_ps(p + 8, lanes_n(8, n))};
}
QUERN_INLINE void f_store_n(float* p, F32x16 a, int n) {
    _mm256_maskstore_ps(p, lanes_n(0, n), a.lo);
    _mm256_maskstore_ps(p + 8, lanes_n(8, n), a.hi);
}
QUERN_INLINE F32x16 f_add(F32x16 a, F32x16 b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
QUERN_INLINE F32x16 f_sub(F32x16 a, F32x16 b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
QUERN_INLINE F32x16 f_mul(F32x16 a, F32x16 b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
QUERN_INLINE F32x16 f_div(F32x16 a, F32x16 b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
QUERN_INLINE F32x16 f_fma(F32x16 a, F32x16 b, F32x16 c) {
    return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
QUERN_INLINE F32x16 f_max(F32x16 a, F32x16 b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
QUERN_INLINE F32x16 f_min(F32x16 a, F32x16 b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
QUERN_INLINE F32x16 f_abs(F32x16 a) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}
QUERN_INLINE F32x16 f_select_n(F32x16 a, F32x16 b, int n) {
    return {_mm256_blendv_ps(b.lo, a.lo, _mm256_castsi256_ps(lanes_n(0, n))),
            _mm256_blendv_ps(b.hi, a.hi, _mm256_castsi256_ps(lanes_n(8, n)))};
}
QUERN_INLINE float f_reduce_add(F32x16 a) {
    const __m256 o = _mm256_add_ps(a.lo, a.hi);
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(o), _mm256_extractf128_ps(o, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
QUERN_INLINE float f_reduce_max(F32x16 a) {
    const __m256 o = _mm256_max_ps(a.lo, a.hi);
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(o), _mm256_extractf128_ps(o, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
QUERN_INLINE F32x16 f_load_f16(const void* p) {
    const __m128i* q = static_cast<const __m128i*>(p);
    return {_mm256_cvtph_ps(_mm_loadu_si128(q)), _mm256_cvtph_ps(_mm_loadu_si128(q + 1))};
}
QUERN_INLINE void f_store_f16(void* p, F32x16 a) {
    __m128i* q = static_cast<__m128i*>(p);
    _mm_storeu_si128(q, _mm256_cvtps_ph(a.lo, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    _mm_storeu_si128(q + 1, _mm256_cvtps_ph(a.hi, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
QUERN_INLINE F32x16 f_load_bf16(const void* p) {
    const __m128i* q = static_cast<const __m128i*>(p);
    const __m256i lo = _mm256_cvtepu16_epi32(_mm_loadu_si128(q)), hi = _mm256_cvtepu16_epi32(_mm_loadu_si128(q + 1));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(lo, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(hi, 16))};
}

// --- int lanes ---
QUERN_INLINE I32x16 i_set1(std::int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
QUERN_INLINE I32x16 i_zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
QUERN_INLINE I32x16 i_add(I32x16 a, I32x16 b) {
    return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
}
QUERN_INLINE I32x16 i_mul(I32x16 a, I32x16 b) {
    return {_mm256_mullo_epi32(a.lo, b.lo), _mm256_mullo_epi32(a.hi, b.hi)};
}
template <int N> QUERN_INLINE I32x16 i_shl(I32x16 a) {
    return {_mm256_slli_epi32(a.lo, N), _mm256_slli_epi32(a.hi, N)};
}
template <int N> QUERN_INLINE F32x16 f_nibble(I32x16 a) {
    const __m256i mask = _mm256_set1_epi32(15);
    return {_mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(a.lo, N), mask)),
            _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(a.hi, N), mask))};
}
QUERN_INLINE void i_store(std::int32_t* p, I32x16 a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.lo);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), a.hi);
}
QUERN_INLINE I32x16 i_load_u8(const void* p) {
    const __m128i b = _mm_loadu_si128(static_cast<const __m128i*>(p));
    return {_mm256_cvtepu8_epi32(b), _mm256_cvtepu8_epi32(_mm_unpackhi_epi64(b, b))};
}
QUERN_INLINE I32x16 i_load_s8(const void* p) {
    const __m128i b = _mm_loadu_si128(static_cast<const __m128i*>(p));
    return {_mm256_cvtepi8_epi32(b), _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(b, b))};
}
QUERN_INLINE F32x16 f_from_i(I32x16 a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }
QUERN_INLINE I32x16 i_from_f(F32x16 a) { return {_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi)}; }
QUERN_INLINE F32x16 f_cast_i(I32x16 a) { return {_mm256_castsi256_ps(a.lo), _mm256_castsi256_ps(a.hi)}; }
QUERN_INLINE I32x16 i_cast_f(F32x16 a) { return {_mm256_castps_si256(a.lo), _mm256_castps_si256(a.hi)}; }
QUERN_INLINE void i_store_s8(std::int8_t* p, I32x16 a) {
    // Packing works within 128-bit halves: words 0-3, 8-11, 4-7, 12-15, put in order before bytes are packed.
    const __m256i w = _mm256_permute4x64_epi64(_mm256_packs_epi32(a.lo, a.hi), 0xd8);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm_packs_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1)));
}

// --- bytes ---
QUERN_INLINE U8x64 u_load(const void* p) {
    const __m256i* q = static_cast<const __m256i*>(p);
    return {_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1)};
}
QUERN_INLINE U8x64 u_set1(std::uint8_t x) {
    const __m256i v = _mm256_set1_epi8(static_cast<char>(x));
    return {v, v};
}
QUERN_INLINE U8x64 u_and(U8x64 a, U8x64 b) { return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)}; }
QUERN_INLINE U8x64 u_or(U8x64 a, U8x64 b) { return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)}; }
// There is no shift of bytes: shift words and mask what crossed.
template <int N> QUERN_INLINE U8x64 u_shr(U8x64 a) {
    const __m256i m = _mm256_set1_epi8(static_cast<char>(0xff >> N));
    return {_mm256_and_si256(_mm256_srli_epi16(a.lo, N), m), _mm256_and_si256(_mm256_srli_epi16(a.hi, N), m)};
}
template <int N> QUERN_INLINE U8x64 u_shl(U8x64 a) {
    const __m256i m = _mm256_set1_epi8(static_cast<char>(0xff << N));
    return {_mm256_and_si256(_mm256_slli_epi16(a.lo, N), m), _mm256_and_si256(_mm256_slli_epi16(a.hi, N), m)};
}
QUERN_INLINE U8x64 u_lookup(const std::uint8_t* table, U8x64 i) {
    const __m256i t = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
    return {_mm256_shuffle_epi8(t, i.lo), _mm256_shuffle_epi8(t, i.hi)};
}
QUERN_INLINE __m256i four_set1(const std::int8_t* x) {
    std::int32_t four;
    __builtin_memcpy(&four, x, 4);
    return _mm256_set1_epi32(four);
}
#ifndef QUERN_SIMD_AVXVNNI
/// Pairs stay below 2 * 127 * 127 = 32258, so the 16-bit sums of maddubs do not saturate.
QUERN_INLINE I32x16 i_dot_u7(I32x16 acc, U8x64 w, const std::int8_t* x) {
    const __m256i b = four_set1(x), one = _mm256_set1_epi16(1);
    return {_mm256_add_epi32(acc.lo, _mm256_madd_epi16(_mm256_maddubs_epi16(w.lo, b), one)),
            _mm256_add_epi32(acc.hi, _mm256_madd_epi16(_mm256_maddubs_epi16(w.hi, b), one))};
}
/// |w| * (x with w's sign): |w| <= 128 and |x| <= 127 give at most 2 * 128 * 127 = 32512. x = -128 would not negate.
QUERN_INLINE I32x16 i_dot_s8(I32x16 acc, U8x64 w, const std::int8_t* x) {
    const __m256i b = four_set1(x), one = _mm256_set1_epi16(1);
    const __m256i lo = _mm256_maddubs_epi16(_mm256_abs_epi8(w.lo), _mm256_sign_epi8(b, w.lo));
    const __m256i hi = _mm256_maddubs_epi16(_mm256_abs_epi8(w.hi), _mm256_sign_epi8(b, w.hi));
    return {_mm256_add_epi32(acc.lo, _mm256_madd_epi16(lo, one)),
            _mm256_add_epi32(acc.hi, _mm256_madd_epi16(hi, one))};
}
#endif

}  // namespace quern::kernels::QUERN_ISA_NS
