// SPDX-License-Identifier: Apache-2.0
// The vector vocabulary, plain C++: 16 float lanes, 16 int lanes, 64 bytes (16 lanes of 4). It is the specification of
// the other simd/*.h: each operation gives the same bits there. Lane i of a reduction meets lane i + 8, then i + 4, ....
// No standard-library function is used: a unit compiled with -m flags must not emit shared inline code.
#pragma once

#include <cstdint>
#include <cstddef>

namespace quern::kernels::QUERN_ISA_NS {

struct F32x16 { float v[16]; };
struct I32x16 { std::int32_t v[16]; };
struct U8x64 { std::uint8_t v[64]; };

#define QUERN_LANES for (int i = 0; i < 16; ++i)
#define QUERN_INLINE static inline __attribute__((always_inline))

QUERN_INLINE float bits_f32(std::uint32_t u) { float f; __builtin_memcpy(&f, &u, 4); return f; }
QUERN_INLINE std::uint32_t f32_bits(float f) { std::uint32_t u; __builtin_memcpy(&u, &f, 4); return u; }
QUERN_INLINE float fma1(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

// --- float lanes; addresses need no alignment ---
QUERN_INLINE F32x16 f_set1(float x) { F32x16 r; QUERN_LANES r.v[i] = x; return r; }
QUERN_INLINE F32x16 f_zero() { return f_set1(0.0f); }
QUERN_INLINE F32x16 f_load(const float* p) { F32x16 r; __builtin_memcpy(r.v, p, 64); return r; }
QUERN_INLINE void f_store(float* p, F32x16 a) { __builtin_memcpy(p, a.v, 64); }
/// The first n lanes (0 <= n <= 16); the rest are 0 when loading and untouched when storing.
QUERN_INLINE F32x16 f_load_n(const float* p, int n) {
    F32x16 r = f_zero();
    QUERN_LANES if (i < n) __builtin_memcpy(&r.v[i], p + i, 4);  // any 32-bit data, not only floats
    return r;
}
QUERN_INLINE void f_store_n(float* p, F32x16 a, int n) {
    QUERN_LANES if (i < n) __builtin_memcpy(p + i, &a.v[i], 4);
}
QUERN_INLINE F32x16 f_add(F32x16 a, F32x16 b) { F32x16 r; QUERN_LANES r.v[i] = a.v[i] + b.v[i]; return r; }
QUERN_INLINE F32x16 f_sub(F32x16 a, F32x16 b) { F32x16 r; QUERN_LANES r.v[i] = a.v[i] - b.v[i]; return r; }
QUERN_INLINE F32x16 f_mul(F32x16 a, F32x16 b) { F32x16 r; QUERN_LANES r.v[i] = a.v[i] * b.v[i]; return r; }
QUERN_INLINE F32x16 f_div(F32x16 a, F32x16 b) { F32x16 r; QUERN_LANES r.v[i] = a.v[i] / b.v[i]; return r; }
/// a * b + c with one rounding.
QUERN_INLINE F32x16 f_fma(F32x16 a, F32x16 b, F32x16 c) {
    F32x16 r; QUERN_LANES r.v[i] = fma1(a.v[i], b.v[i], c.v[i]); return r;
}
/// x86's rule: b where a is not greater (so NaN in a gives b).
QUERN_INLINE F32x16 f_max(F32x16 a, F32x16 b) { F32x16 r; QUERN_LANES r.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i]; return r; }
QUERN_INLINE F32x16 f_min(F32x16 a, F32x16 b) { F32x16 r; QUERN_LANES r.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i]; return r; }
QUERN_INLINE F32x16 f_abs(F32x16 a) { F32x16 r; QUERN_LANES r.v[i] = bits_f32(f32_bits(a.v[i]) & 0x7fffffffu); return r; }
/// a[i] where i < n, else b[i].
QUERN_INLINE F32x16 f_select_n(F32x16 a, F32x16 b, int n) { F32x16 r; QUERN_LANES r.v[i] = i < n ? a.v[i] : b.v[i]; return r; }
QUERN_INLINE float f_reduce_add(F32x16 a) {
    for (int w = 8; w; w /= 2) for (int i = 0; i < w; ++i) a.v[i] = a.v[i] + a.v[i + w];
    return a.v[0];
}
QUERN_INLINE float f_reduce_max(F32x16 a) {
    for (int w = 8; w; w /= 2) for (int i = 0; i < w; ++i) a.v[i] = a.v[i] > a.v[i + w] ? a.v[i] : a.v[i + w];
    return a.v[0];
}
/// 16 IEEE halves; subnormals kept.
QUERN_INLINE F32x16 f_load_f16(const void* p) {
    F32x16 r;
    QUERN_LANES {
        std::uint16_t h; __builtin_memcpy(&h, static_cast<const char*>(p) + 2 * i, 2);
        const std::uint32_t sign = (h & 0x8000u) << 16, em = h & 0x7fffu;
        const float sub = bits_f32((126u << 23) + em) - bits_f32(126u << 23);            // em * 2^-24, exact
        const std::uint32_t norm = (em << 13) + (em >= 0x7c00u ? 0x70000000u : 0x38000000u);
        r.v[i] = bits_f32((em < 0x0400u ? f32_bits(sub) : norm) | sign);
    }
    return r;
}
/// Round to nearest even; overflow to infinity; NaN stays a (quiet) NaN.
QUERN_INLINE void f_store_f16(void* p, F32x16 a) {
    QUERN_LANES {
        const std::uint32_t u = f32_bits(a.v[i]), sign = (u >> 16) & 0x8000u, x = u & 0x7fffffffu;
        std::uint32_t h;
        if (x > 0x7f800000u) h = 0x7e00u | ((x >> 13) & 0x1ffu);
        else if (x >= 0x477ff000u) h = 0x7c00u;
        else if (x < 0x38800000u) h = f32_bits(bits_f32(x) + 0.5f) - f32_bits(0.5f);      // the add rounds at 2^-24
        else h = (x - 0x38000000u + 0xfffu + ((x >> 13) & 1u)) >> 13;
        const std::uint16_t out = static_cast<std::uint16_t>(h | sign);
        __builtin_memcpy(static_cast<char*>(p) + 2 * i, &out, 2);
    }
}
QUERN_INLINE F32x16 f_load_bf16(const void* p) {
    F32x16 r;
    QUERN_LANES { std::uint16_t h; __builtin_memcpy(&h, static_cast<const char*>(p) + 2 * i, 2); r.v[i] = bits_f32(std::uint32_t{h} << 16); }
    return r;
}

// --- int lanes ---
QUERN_INLINE I32x16 i_set1(std::int32_t x) { I32x16 r; QUERN_LANES r.v[i] = x; return r; }
QUERN_INLINE I32x16 i_zero() { return i_set1(0); }
/// Modulo 2^32, as vector units add.
QUERN_INLINE std::int32_t wrap_add(std::int32_t a, std::int32_t b) {
    return static_cast<std::int32_t>(static_cast<std::uint32_t>(a) + static_cast<std::uint32_t>(b));
}
QUERN_INLINE I32x16 i_add(I32x16 a, I32x16 b) { I32x16 r; QUERN_LANES r.v[i] = wrap_add(a.v[i], b.v[i]); return r; }
/// Modulo 2^32.
QUERN_INLINE I32x16 i_mul(I32x16 a, I32x16 b) {
    I32x16 r;
    QUERN_LANES r.v[i] = static_cast<std::int32_t>(static_cast<std::uint32_t>(a.v[i]) * static_cast<std::uint32_t>(b.v[i]));
    return r;
}
template <int N> QUERN_INLINE I32x16 i_shl(I32x16 a) { I32x16 r; QUERN_LANES r.v[i] = static_cast<std::int32_t>(static_cast<std::uint32_t>(a.v[i]) << N); return r; }
QUERN_INLINE void i_store(std::int32_t* p, I32x16 a) { __builtin_memcpy(p, a.v, 64); }
/// Bits N .. N + 3 of each lane, 0 to 15, as a float.
template <int N> QUERN_INLINE F32x16 f_nibble(I32x16 a) { F32x16 r; QUERN_LANES r.v[i] = static_cast<float>(static_cast<std::uint32_t>(a.v[i]) >> N & 15u); return r; }
/// 16 bytes, zero- or sign-extended.
QUERN_INLINE I32x16 i_load_u8(const void* p) { I32x16 r; QUERN_LANES r.v[i] = static_cast<const std::uint8_t*>(p)[i]; return r; }
QUERN_INLINE I32x16 i_load_s8(const void* p) { I32x16 r; QUERN_LANES r.v[i] = static_cast<const std::int8_t*>(p)[i]; return r; }
QUERN_INLINE F32x16 f_from_i(I32x16 a) { F32x16 r; QUERN_LANES r.v[i] = static_cast<float>(a.v[i]); return r; }
/// Round to nearest even; |a| < 2^31.
QUERN_INLINE I32x16 i_from_f(F32x16 a) { I32x16 r; QUERN_LANES r.v[i] = static_cast<std::int32_t>(__builtin_rintf(a.v[i])); return r; }
QUERN_INLINE F32x16 f_cast_i(I32x16 a) { F32x16 r; QUERN_LANES r.v[i] = bits_f32(static_cast<std::uint32_t>(a.v[i])); return r; }
QUERN_INLINE I32x16 i_cast_f(F32x16 a) { I32x16 r; QUERN_LANES r.v[i] = static_cast<std::int32_t>(f32_bits(a.v[i])); return r; }
/// The low byte of each lane (values in -128..127) to 16 bytes.
QUERN_INLINE void i_store_s8(std::int8_t* p, I32x16 a) { QUERN_LANES p[i] = static_cast<std::int8_t>(a.v[i]); }

// --- bytes ---
QUERN_INLINE U8x64 u_load(const void* p) { U8x64 r; __builtin_memcpy(r.v, p, 64); return r; }
QUERN_INLINE U8x64 u_set1(std::uint8_t x) { U8x64 r; for (auto& b : r.v) b = x; return r; }
QUERN_INLINE U8x64 u_and(U8x64 a, U8x64 b) { for (int i = 0; i < 64; ++i) a.v[i] &= b.v[i]; return a; }
QUERN_INLINE U8x64 u_or(U8x64 a, U8x64 b) { for (int i = 0; i < 64; ++i) a.v[i] |= b.v[i]; return a; }
/// Shifts each byte; bits never cross into the next byte.
template <int N> QUERN_INLINE U8x64 u_shr(U8x64 a) { for (auto& b : a.v) b = static_cast<std::uint8_t>(b >> N); return a; }
template <int N> QUERN_INLINE U8x64 u_shl(U8x64 a) { for (auto& b : a.v) b = static_cast<std::uint8_t>(b << N); return a; }
/// Each byte of `i`, all below 16, replaced by that entry of the 16 bytes at `table`.
QUERN_INLINE U8x64 u_lookup(const std::uint8_t* table, U8x64 i) { for (auto& b : i.v) b = table[b]; return i; }
/// acc[i] += sum over j < 4 of w[4i + j] * x[j], w unsigned at most 127, x signed in +-127.
QUERN_INLINE I32x16 i_dot_u7(I32x16 acc, U8x64 w, const std::int8_t* x) {
    QUERN_LANES for (int j = 0; j < 4; ++j) acc.v[i] = wrap_add(acc.v[i], w.v[4 * i + j] * x[j]);
    return acc;
}
/// The same with w signed (-128..127).
QUERN_INLINE I32x16 i_dot_s8(I32x16 acc, U8x64 w, const std::int8_t* x) {
    QUERN_LANES for (int j = 0; j < 4; ++j) acc.v[i] = wrap_add(acc.v[i], static_cast<std::int8_t>(w.v[4 * i + j]) * x[j]);
    return acc;
}
#undef QUERN_LANES

}  // namespace quern::kernels::QUERN_ISA_NS
