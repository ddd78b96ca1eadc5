// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/cpu/decode/common.inl"

namespace quern::kernels::QUERN_ISA_NS {

/// The values 12 up, so that they are unsigned codes like those of the other types.
alignas(16) constexpr std::uint8_t kMXFP4Codes[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};

struct DecodeMXFP4 {
    using L = panel::MXFP4;
    static constexpr int kBits = 5, kOffset = 12;
    static constexpr bool kMin = false, kHalf = false, kSigned = false;

    QUERN_MEMBER void codes(const std::byte* p, std::size_t b, U8x64* w) {
        nibbles(p + L::codes(b), w);
        QUERN_UNROLL_N(8)
        for (int g = 0; g < 8; ++g) w[g] = u_lookup(kMXFP4Codes, w[g]);
    }
    /// 2^(e - 128) as the product of two powers: exact, also where it is subnormal (e < 2), which no shift gives.
    QUERN_MEMBER F32x16 scale(const std::byte* p, std::size_t b, int) {
        const Bytes16 e = bytes16(p + L::scale(b)), down = (e >> 1) + 63, up = (e - (e >> 1)) + 63;
        return f_mul(f_cast_i(i_shl<23>(i_load_u8(&down))), f_cast_i(i_shl<23>(i_load_u8(&up))));
    }
};

}  // namespace quern::kernels::QUERN_ISA_NS
