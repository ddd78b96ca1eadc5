// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/cpu/decode/common.inl"

namespace quern::kernels::QUERN_ISA_NS {

/// Where the dot product takes any unsigned byte (QUERN_SIMD_DOT_U8), w + 128 with offset 128; else signed bytes.
struct DecodeQ8_0 {
    using L = panel::Q8_0;
    static constexpr int kBits = 8;
    static constexpr bool kMin = false, kHalf = false;
#ifdef QUERN_SIMD_DOT_U8
    static constexpr int kOffset = 128;
    static constexpr bool kSigned = false;
    QUERN_MEMBER U8x64 code(U8x64 raw) { return u_xor(raw, u_set1(0x80)); }
#else
    static constexpr int kOffset = 0;
    static constexpr bool kSigned = true;
    QUERN_MEMBER U8x64 code(U8x64 raw) { return raw; }
#endif

    QUERN_MEMBER void codes(const std::byte* p, std::size_t b, U8x64* w) {
        QUERN_UNROLL_N(8)
        for (int g = 0; g < 8; ++g) w[g] = code(u_load(p + L::codes(b) + 64 * g));
    }
    QUERN_MEMBER F32x16 scale(const std::byte* p, std::size_t b, int) { return f_load_f16(p + L::d(b)); }
};

}  // namespace quern::kernels::QUERN_ISA_NS
