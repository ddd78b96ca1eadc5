// SPDX-License-Identifier: Apache-2.0
// What the decoders share. A decoder says of its type
//   kBits    width of a code as codes() gives it      kOffset  value = (code - kOffset) * scale (+ min)
//   kSigned  codes are signed bytes                   kMin     there is a min()
//   kHalf    scales cover 16 values, not 32; h says which half of the block
// and gives, for 32-block b of a panel, codes() as 8 vectors (vector g, byte 4 r + i: value 4 g + i of row r) and
// scale(), min() with lane = row. See panel.h for the bytes.
#pragma once

#define QUERN_MEMBER static inline __attribute__((always_inline))
#define QUERN_INLINE_MEMBER inline __attribute__((always_inline))

#include "kernels/cpu/panel.h"

/// Loops over registers must unroll; the scalar unit says no, because there it only makes code.
#ifndef QUERN_UNROLL_N
#define QUERN_PRAGMA_TEXT(text) _Pragma(#text)
#define QUERN_UNROLL_N(n) QUERN_PRAGMA_TEXT(GCC unroll n)
#endif

namespace quern::kernels::QUERN_ISA_NS {

/// 16 bytes for nibble arithmetic before i_load_u8.
using Bytes16 = std::uint8_t __attribute__((vector_size(16)));
QUERN_INLINE Bytes16 bytes16(const std::byte* p) {
    Bytes16 v;
    __builtin_memcpy(&v, p, 16);
    return v;
}

QUERN_INLINE void nibbles(const std::byte* p, U8x64* w) {
    const U8x64 low = u_set1(15);
    QUERN_UNROLL_N(4)
    for (int g = 0; g < 4; ++g) {
        const U8x64 raw = u_load(p + 64 * g);
        w[g] = u_and(raw, low);
        w[g + 4] = u_shr<4>(raw);
    }
}

/// Bit G of each byte of plane, moved to bit kTo.
template <int G, int kTo>
QUERN_INLINE U8x64 bit_to(U8x64 plane) {
    U8x64 moved;
    if constexpr (G < kTo) {
        moved = u_shl<kTo - G>(plane);
    } else if constexpr (G > kTo) {
        moved = u_shr<G - kTo>(plane);
    } else {
        moved = plane;
    }
    return u_and(moved, u_set1(1 << kTo));
}

/// Adds the plane's bits to the codes as bit kTo.
template <int kTo>
QUERN_INLINE void add_bits(const std::byte* p, U8x64* w) {
    const U8x64 plane = u_load(p);
    w[0] = u_or(w[0], bit_to<0, kTo>(plane));
    w[1] = u_or(w[1], bit_to<1, kTo>(plane));
    w[2] = u_or(w[2], bit_to<2, kTo>(plane));
    w[3] = u_or(w[3], bit_to<3, kTo>(plane));
    w[4] = u_or(w[4], bit_to<4, kTo>(plane));
    w[5] = u_or(w[5], bit_to<5, kTo>(plane));
    w[6] = u_or(w[6], bit_to<6, kTo>(plane));
    w[7] = u_or(w[7], bit_to<7, kTo>(plane));
}

/// Two-bit values of four vectors, at bits kTo and kTo + 1 (0 or 4).
template <int kTo>
QUERN_INLINE void crumbs(const std::byte* p, U8x64* w) {
    const U8x64 mask = u_set1(3 << kTo);
    QUERN_UNROLL_N(2)
    for (int v = 0; v < 2; ++v) {
        const U8x64 raw = u_load(p + 64 * v);
        if constexpr (kTo == 0) {
            w[4 * v] = u_and(raw, mask);
            w[4 * v + 1] = u_and(u_shr<2>(raw), mask);
            w[4 * v + 2] = u_and(u_shr<4>(raw), mask);
            w[4 * v + 3] = u_shr<6>(raw);
        } else {
            w[4 * v] = u_and(u_shl<4>(raw), mask);
            w[4 * v + 1] = u_and(u_shl<2>(raw), mask);
            w[4 * v + 2] = u_and(raw, mask);
            w[4 * v + 3] = u_and(u_shr<2>(raw), mask);
        }
    }
}

/// d * scale and -(dmin * min), both exact products of an F16 and a small integer.
QUERN_INLINE F32x16 scaled(const std::byte* d, I32x16 scale) { return f_mul(f_load_f16(d), f_from_i(scale)); }
QUERN_INLINE F32x16 scaled_min(const std::byte* dmin, I32x16 min) {
    return f_sub(f_set1(-0.0f), f_mul(f_load_f16(dmin), f_from_i(min)));
}

}  // namespace quern::kernels::QUERN_ISA_NS
