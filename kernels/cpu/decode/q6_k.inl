// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/cpu/decode/common.inl"

namespace quern::kernels::QUERN_ISA_NS {

struct DecodeQ6_K {
    using L = panel::Q6_K;
    static constexpr int kBits = 6, kOffset = 32;
    static constexpr bool kMin = false, kHalf = true, kSigned = false;

    QUERN_MEMBER void codes(const std::byte* p, std::size_t b, U8x64* w) {
        nibbles(p + L::codes(b), w);
        U8x64 high[8];
        crumbs<4>(p + L::codes(b) + 256, high);
        QUERN_UNROLL_N(8)
        for (int g = 0; g < 8; ++g) w[g] = u_or(w[g], high[g]);
    }
    QUERN_MEMBER F32x16 scale(const std::byte* p, std::size_t b, int h) {
        return scaled(p + L::d(b), i_load_s8(p + L::scale16(b, static_cast<std::size_t>(h))));
    }
};

}  // namespace quern::kernels::QUERN_ISA_NS
