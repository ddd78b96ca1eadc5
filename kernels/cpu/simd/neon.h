// SPDX-License-Identifier: Apache-2.0
// The vocabulary of simd/scalar.h on four 128-bit NEON registers: Armv8.2 with the dot-product extension, little
// endian. One difference, which the x86 headers share: reading a signalling NaN half gives the quiet NaN.
// The four parts are written out: a loop over them would keep GCC 12 from splitting the structs into registers.
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

namespace quern::kernels::QUERN_ISA_NS {

struct F32x16 { float32x4_t v[4]; };
struct I32x16 { int32x4_t v[4]; };
struct U8x64 { uint8x16_t v[4]; };

#define QUERN_INLINE static inline __attribute__((always_inline))
#define QUERN_MAP1(R, name, A, op) \
    QUERN_INLINE R name(A a) { return {{op(a.v[0]), op(a.v[1]), op(a.v[2]), op(a.v[3])}}; }
#define QUERN_MAP2(R, name, A, op) \
    QUERN_INLINE R name(A a, A b) { \
        return {{op(a.v[0], b.v[0]), op(a.v[1], b.v[1]), op(a.v[2], b.v[2]), op(a.v[3], b.v[3])}}; \
    }

QUERN_INLINE float bits_f32(std::uint32_t u) { float f; __builtin_memcpy(&f, &u, 4); return f; }
QUERN_INLINE std::uint32_t f32_bits(float f) { std::uint32_t u; __builtin_memcpy(&u, &f, 4); return u; }
QUERN_INLINE float fma1(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

// --- float lanes ---
QUERN_INLINE F32x16 f_set1(float x) { const float32x4_t q = vdupq_n_f32(x); return {{q, q, q, q}}; }
QUERN_INLINE F32x16 f_zero() { return f_set1(0.0f); }
QUERN_INLINE F32x16 f_load(const float* p) {
    return {{vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}};
}
QUERN_INLINE void f_store(float* p, F32x16 a) {
    vst1q_f32(p, a.v[0]);
    vst1q_f32(p + 4, a.v[1]);
    vst1q_f32(p + 8, a.v[2]);
    vst1q_f32(p + 12, a.v[3]);
}
/// NEON has no masked access, so tails go through the stack; they are at most one in a row.
QUERN_INLINE F32x16 f_load_n(const float* p, int n) {
    if (n >= 16) return f_load(p);
    float t[16] = {};
    for (int i = 0; i < n; ++i) t[i] = p[i];
    return f_load(t);
}
QUERN_INLINE void f_store_n(float* p, F32x16 a, int n) {
    if (n >= 16) return f_store(p, a);
    float t[16];
    f_store(t, a);
    for (int i = 0; i < n; ++i) p[i] = t[i];
}
QUERN_MAP2(F32x16, f_add, F32x16, vaddq_f32)
QUERN_MAP2(F32x16, f_sub, F32x16, vsubq_f32)
QUERN_MAP2(F32x16, f_mul, F32x16, vmulq_f32)
QUERN_MAP2(F32x16, f_div, F32x16, vdivq_f32)
QUERN_INLINE F32x16 f_fma(F32x16 a, F32x16 b, F32x16 c) {
    return {{vfmaq_f32(c.v[0], a.v[0], b.v[0]), vfmaq_f32(c.v[1], a.v[1], b.v[1]),
             vfmaq_f32(c.v[2], a.v[2], b.v[2]), vfmaq_f32(c.v[3], a.v[3], b.v[3])}};
}
// FMAX and FMIN treat NaN and signed zeros in another way than x86's rule, hence compare and select.
QUERN_INLINE float32x4_t max_part(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
QUERN_INLINE float32x4_t min_part(float32x4_t a, float32x4_t b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
QUERN_MAP2(F32x16, f_max, F32x16, max_part)
QUERN_MAP2(F32x16, f_min, F32x16, min_part)
QUERN_MAP1(F32x16, f_abs, F32x16, vabsq_f32)
QUERN_INLINE F32x16 f_select_n(F32x16 a, F32x16 b, int n) {
    const int32x4_t lane = vcombine_s32(vcreate_s32(0x0000000100000000u), vcreate_s32(0x0000000300000002u));
    return {{vbslq_f32(vcltq_s32(lane, vdupq_n_s32(n)), a.v[0], b.v[0]),
             vbslq_f32(vcltq_s32(lane, vdupq_n_s32(n - 4)), a.v[1], b.v[1]),
             vbslq_f32(vcltq_s32(lane, vdupq_n_s32(n - 8)), a.v[2], b.v[2]),
             vbslq_f32(vcltq_s32(lane, vdupq_n_s32(n - 12)), a.v[3], b.v[3])}};
}
QUERN_INLINE float f_reduce_add(F32x16 a) {
    const float32x4_t q = vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]));
    const float32x2_t d = vadd_f32(vget_low_f32(q), vget_high_f32(q));
    return vget_lane_f32(d, 0) + vget_lane_f32(d, 1);
}
QUERN_INLINE float f_reduce_max(F32x16 a) {
    const float32x4_t q = max_part(max_part(a.v[0], a.v[2]), max_part(a.v[1], a.v[3]));
    const float32x2_t l = vget_low_f32(q), h = vget_high_f32(q);
    const float32x2_t d = vbsl_f32(vcgt_f32(l, h), l, h);
    const float x = vget_lane_f32(d, 0), y = vget_lane_f32(d, 1);
    return x > y ? x : y;
}
QUERN_INLINE F32x16 f_load_f16(const void* p) {
    const std::uint8_t* b = static_cast<const std::uint8_t*>(p);
    const float16x8_t lo = vreinterpretq_f16_u8(vld1q_u8(b)), hi = vreinterpretq_f16_u8(vld1q_u8(b + 16));
    return {{vcvt_f32_f16(vget_low_f16(lo)), vcvt_high_f32_f16(lo), vcvt_f32_f16(vget_low_f16(hi)), vcvt_high_f32_f16(hi)}};
}
QUERN_INLINE void f_store_f16(void* p, F32x16 a) {
    std::uint8_t* b = static_cast<std::uint8_t*>(p);
    vst1q_u8(b, vreinterpretq_u8_f16(vcvt_high_f16_f32(vcvt_f16_f32(a.v[0]), a.v[1])));
    vst1q_u8(b + 16, vreinterpretq_u8_f16(vcvt_high_f16_f32(vcvt_f16_f32(a.v[2]), a.v[3])));
}
QUERN_INLINE F32x16 f_load_bf16(const void* p) {
    const std::uint8_t* b = static_cast<const std::uint8_t*>(p);
    const uint16x8_t lo = vreinterpretq_u16_u8(vld1q_u8(b)), hi = vreinterpretq_u16_u8(vld1q_u8(b + 16));
    return {{vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(lo), 16)), vreinterpretq_f32_u32(vshll_high_n_u16(lo, 16)),
             vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(hi), 16)), vreinterpretq_f32_u32(vshll_high_n_u16(hi, 16))}};
}

// --- int lanes ---
QUERN_INLINE I32x16 i_set1(std::int32_t x) { const int32x4_t q = vdupq_n_s32(x); return {{q, q, q, q}}; }
QUERN_INLINE I32x16 i_zero() { return i_set1(0); }
QUERN_MAP2(I32x16, i_add, I32x16, vaddq_s32)
QUERN_MAP2(I32x16, i_mul, I32x16, vmulq_s32)
template <int N> QUERN_INLINE I32x16 i_shl(I32x16 a) {
    return {{vshlq_n_s32(a.v[0], N), vshlq_n_s32(a.v[1], N), vshlq_n_s32(a.v[2], N), vshlq_n_s32(a.v[3], N)}};
}
template <int N> QUERN_INLINE F32x16 f_nibble(I32x16 a) {
    const auto one = [](int32x4_t v) {
        const uint32x4_t u = vreinterpretq_u32_s32(v);
        // A shift by 0 has no encoding.
        if constexpr (N == 0) return vcvtq_f32_u32(vandq_u32(u, vdupq_n_u32(15)));
        else return vcvtq_f32_u32(vandq_u32(vshrq_n_u32(u, N), vdupq_n_u32(15)));
    };
    return {{one(a.v[0]), one(a.v[1]), one(a.v[2]), one(a.v[3])}};
}
QUERN_INLINE void i_store(std::int32_t* p, I32x16 a) {
    vst1q_s32(p, a.v[0]);
    vst1q_s32(p + 4, a.v[1]);
    vst1q_s32(p + 8, a.v[2]);
    vst1q_s32(p + 12, a.v[3]);
}
QUERN_INLINE I32x16 i_load_u8(const void* p) {
    const uint8x16_t b = vld1q_u8(static_cast<const std::uint8_t*>(p));
    const uint16x8_t lo = vmovl_u8(vget_low_u8(b)), hi = vmovl_high_u8(b);
    return {{vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(lo))), vreinterpretq_s32_u32(vmovl_high_u16(lo)),
             vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(hi))), vreinterpretq_s32_u32(vmovl_high_u16(hi))}};
}
QUERN_INLINE I32x16 i_load_s8(const void* p) {
    const int8x16_t b = vld1q_s8(static_cast<const std::int8_t*>(p));
    const int16x8_t lo = vmovl_s8(vget_low_s8(b)), hi = vmovl_high_s8(b);
    return {{vmovl_s16(vget_low_s16(lo)), vmovl_high_s16(lo), vmovl_s16(vget_low_s16(hi)), vmovl_high_s16(hi)}};
}
QUERN_MAP1(F32x16, f_from_i, I32x16, vcvtq_f32_s32)
QUERN_MAP1(I32x16, i_from_f, F32x16, vcvtnq_s32_f32)
QUERN_MAP1(F32x16, f_cast_i, I32x16, vreinterpretq_f32_s32)
QUERN_MAP1(I32x16, i_cast_f, F32x16, vreinterpretq_s32_f32)
QUERN_INLINE void i_store_s8(std::int8_t* p, I32x16 a) {
    const int16x8_t lo = vmovn_high_s32(vmovn_s32(a.v[0]), a.v[1]), hi = vmovn_high_s32(vmovn_s32(a.v[2]), a.v[3]);
    vst1q_s8(p, vmovn_high_s16(vmovn_s16(lo), hi));
}

// --- bytes ---
QUERN_INLINE U8x64 u_load(const void* p) {
    const std::uint8_t* b = static_cast<const std::uint8_t*>(p);
    return {{vld1q_u8(b), vld1q_u8(b + 16), vld1q_u8(b + 32), vld1q_u8(b + 48)}};
}
QUERN_INLINE U8x64 u_set1(std::uint8_t x) { const uint8x16_t q = vdupq_n_u8(x); return {{q, q, q, q}}; }
QUERN_MAP2(U8x64, u_and, U8x64, vandq_u8)
QUERN_MAP2(U8x64, u_or, U8x64, vorrq_u8)
template <int N> QUERN_INLINE U8x64 u_shr(U8x64 a) {
    if constexpr (N == 0) return a;  // USHR has no shift by 0
    else return {{vshrq_n_u8(a.v[0], N), vshrq_n_u8(a.v[1], N), vshrq_n_u8(a.v[2], N), vshrq_n_u8(a.v[3], N)}};
}
template <int N> QUERN_INLINE U8x64 u_shl(U8x64 a) {
    return {{vshlq_n_u8(a.v[0], N), vshlq_n_u8(a.v[1], N), vshlq_n_u8(a.v[2], N), vshlq_n_u8(a.v[3], N)}};
}
QUERN_INLINE U8x64 u_lookup(const std::uint8_t* table, U8x64 i) {
    const uint8x16_t t = vld1q_u8(table);
    return {{vqtbl1q_u8(t, i.v[0]), vqtbl1q_u8(t, i.v[1]), vqtbl1q_u8(t, i.v[2]), vqtbl1q_u8(t, i.v[3])}};
}
QUERN_INLINE I32x16 i_dot_s8(I32x16 acc, U8x64 w, const std::int8_t* x) {
    std::int32_t four;
    __builtin_memcpy(&four, x, 4);
    const int8x16_t q = vreinterpretq_s8_s32(vdupq_n_s32(four));
    return {{vdotq_s32(acc.v[0], vreinterpretq_s8_u8(w.v[0]), q), vdotq_s32(acc.v[1], vreinterpretq_s8_u8(w.v[1]), q),
             vdotq_s32(acc.v[2], vreinterpretq_s8_u8(w.v[2]), q), vdotq_s32(acc.v[3], vreinterpretq_s8_u8(w.v[3]), q)}};
}
/// Codes of at most 127 mean the same signed and unsigned.
QUERN_INLINE I32x16 i_dot_u7(I32x16 acc, U8x64 w, const std::int8_t* x) { return i_dot_s8(acc, w, x); }

#undef QUERN_MAP1
#undef QUERN_MAP2

}  // namespace quern::kernels::QUERN_ISA_NS
