// SPDX-License-Identifier: Apache-2.0
// The vocabulary of scalar.h on one 512-bit register a value. Needs F, BW, VL, DQ, VNNI and BMI2.
#pragma once

// GCC 12 takes the undefined pass-through operands inside its own intrinsics for a mistake.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include <cstddef>
#include <cstdint>

/// i_dot_u7 takes any unsigned byte here.
#define QUERN_SIMD_DOT_U8 1

namespace quern::kernels::QUERN_ISA_NS {

using F32x16 = __m512;
using I32x16 = __m512i;
using U8x64 = __m512i;

#define QUERN_INLINE static inline __attribute__((always_inline))

QUERN_INLINE float bits_f32(std::uint32_t u) { float f; __builtin_memcpy(&f, &u, 4); return f; }
QUERN_INLINE std::uint32_t f32_bits(float f) { std::uint32_t u; __builtin_memcpy(&u, &f, 4); return u; }
QUERN_INLINE float fma1(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

// --- float lanes ---
/// The first n lanes, 0 <= n.
QUERN_INLINE __mmask16 lanes_n(int n) { return static_cast<__mmask16>(_bzhi_u32(0xffffu, static_cast<unsigned>(n))); }
QUERN_INLINE F32x16 f_set1(float x) { return _mm512_set1_ps(x); }
QUERN_INLINE F32x16 f_zero() { return _mm512_setzero_ps(); }
QUERN_INLINE F32x16 f_load(const float* p) { return _mm512_loadu_ps(p); }
QUERN_INLINE void f_store(float* p, F32x16 a) { _mm512_storeu_ps(p, a); }
QUERN_INLINE F32x16 f_load_n(const float* p, int n) { return _mm512_maskz_loadu_ps(lanes_n(n), p); }
QUERN_INLINE void f_store_n(float* p, F32x16 a, int n) { _mm512_mask_storeu_ps(p, lanes_n(n), a); }
QUERN_INLINE F32x16 f_add(F32x16 a, F32x16 b) { return _mm512_add_ps(a, b); }
QUERN_INLINE F32x16 f_sub(F32x16 a, F32x16 b) { return _mm512_sub_ps(a, b); }
QUERN_INLINE F32x16 f_mul(F32x16 a, F32x16 b) { return _mm512_mul_ps(a, b); }
QUERN_INLINE F32x16 f_div(F32x16 a, F32x16 b) { return _mm512_div_ps(a, b); }
QUERN_INLINE F32x16 f_fma(F32x16 a, F32x16 b, F32x16 c) { return _mm512_fmadd_ps(a, b, c); }
QUERN_INLINE F32x16 f_max(F32x16 a, F32x16 b) { return _mm512_max_ps(a, b); }
QUERN_INLINE F32x16 f_min(F32x16 a, F32x16 b) { return _mm512_min_ps(a, b); }
QUERN_INLINE F32x16 f_abs(F32x16 a) { return _mm512_abs_ps(a); }
QUERN_INLINE F32x16 f_select_n(F32x16 a, F32x16 b, int n) { return _mm512_mask_blend_ps(lanes_n(n), b, a); }
QUERN_INLINE float f_reduce_add(F32x16 a) {
    const __m256 o = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(o), _mm256_extractf128_ps(o, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
QUERN_INLINE float f_reduce_max(F32x16 a) {
    const __m256 o = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(o), _mm256_extractf128_ps(o, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
QUERN_INLINE F32x16 f_load_f16(const void* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
}
QUERN_INLINE void f_store_f16(void* p, F32x16 a) {
    _mm256_storeu_si256(static_cast<__m256i*>(p), _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
QUERN_INLINE F32x16 f_load_bf16(const void* p) {
    const __m512i w = _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(w, 16));
}

// --- int lanes ---
QUERN_INLINE I32x16 i_set1(std::int32_t x) { return _mm512_set1_epi32(x); }
QUERN_INLINE I32x16 i_zero() { return _mm512_setzero_si512(); }
QUERN_INLINE I32x16 i_add(I32x16 a, I32x16 b) { return _mm512_add_epi32(a, b); }
QUERN_INLINE I32x16 i_mul(I32x16 a, I32x16 b) { return _mm512_mullo_epi32(a, b); }
template <int N> QUERN_INLINE I32x16 i_shl(I32x16 a) { return _mm512_slli_epi32(a, N); }
QUERN_INLINE void i_store(std::int32_t* p, I32x16 a) { _mm512_storeu_si512(p, a); }
// The permutation looks at four bits of an index alone: no mask, and no conversion from integers.
template <int N> QUERN_INLINE F32x16 f_nibble(I32x16 a) {
    const F32x16 table = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_permutexvar_ps(N ? _mm512_srli_epi32(a, N) : a, table);
}
QUERN_INLINE I32x16 i_load_u8(const void* p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
}
QUERN_INLINE I32x16 i_load_s8(const void* p) {
    return _mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
}
QUERN_INLINE F32x16 f_from_i(I32x16 a) { return _mm512_cvtepi32_ps(a); }
QUERN_INLINE I32x16 i_from_f(F32x16 a) { return _mm512_cvtps_epi32(a); }
QUERN_INLINE F32x16 f_cast_i(I32x16 a) { return _mm512_castsi512_ps(a); }
QUERN_INLINE I32x16 i_cast_f(F32x16 a) { return _mm512_castps_si512(a); }
QUERN_INLINE void i_store_s8(std::int8_t* p, I32x16 a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a));
}

// --- bytes ---
QUERN_INLINE U8x64 u_load(const void* p) { return _mm512_loadu_si512(p); }
QUERN_INLINE U8x64 u_set1(std::uint8_t x) { return _mm512_set1_epi8(static_cast<char>(x)); }
QUERN_INLINE U8x64 u_and(U8x64 a, U8x64 b) { return _mm512_and_si512(a, b); }
QUERN_INLINE U8x64 u_or(U8x64 a, U8x64 b) { return _mm512_or_si512(a, b); }
QUERN_INLINE U8x64 u_xor(U8x64 a, U8x64 b) { return _mm512_xor_si512(a, b); }
// There is no shift of bytes: shift words and mask what crossed.
template <int N> QUERN_INLINE U8x64 u_shr(U8x64 a) {
    return _mm512_and_si512(_mm512_srli_epi16(a, N), _mm512_set1_epi8(static_cast<char>(0xff >> N)));
}
template <int N> QUERN_INLINE U8x64 u_shl(U8x64 a) {
    return _mm512_and_si512(_mm512_slli_epi16(a, N), _mm512_set1_epi8(static_cast<char>(0xff << N)));
}
QUERN_INLINE U8x64 u_lookup(const std::uint8_t* table, U8x64 i) {
    const __m128i t = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(t), i);
}
QUERN_INLINE I32x16 i_dot_u7(I32x16 acc, U8x64 w, const std::int8_t* x) {
    std::int32_t four;
    __builtin_memcpy(&four, x, 4);
    return _mm512_dpbusd_epi32(acc, w, _mm512_set1_epi32(four));
}
/// (w + 128) . x - 128 . x: two instructions, so types with signed codes shift them while decoding instead.
QUERN_INLINE I32x16 i_dot_s8(I32x16 acc, U8x64 w, const std::int8_t* x) {
    std::int32_t four;
    __builtin_memcpy(&four, x, 4);
    const __m512i b = _mm512_set1_epi32(four), flip = _mm512_set1_epi8(static_cast<char>(0x80));
    const __m512i lift = _mm512_dpbusd_epi32(_mm512_setzero_si512(), flip, b);
    return _mm512_sub_epi32(_mm512_dpbusd_epi32(acc, _mm512_xor_si512(w, flip), b), lift);
}

}  // namespace quern::kernels::QUERN_ISA_NS
