// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/cpu/decode/common.inl"

namespace quern::kernels::QUERN_ISA_NS {

struct DecodeQ2_K {
    using L = panel::Q2_K;
    static constexpr int kBits = 2, kOffset = 0;
    static constexpr bool kMin = true, kHalf = true, kSigned = false;

    QUERN_MEMBER void codes(const std::byte* p, std::size_t b, U8x64* w) {
        crumbs<0>(p + L::codes(b), w);
    }
    QUERN_MEMBER F32x16 scale(const std::byte* p, std::size_t b, int h) {
        const Bytes16 low = bytes16(p + L::scale16(b, static_cast<std::size_t>(h))) & 15;
        return scaled(p + L::d(b), i_load_u8(&low));
    }
    QUERN_MEMBER F32x16 min(const std::byte* p, std::size_t b, int h) {
        const Bytes16 high = bytes16(p + L::scale16(b, static_cast<std::size_t>(h))) >> 4;
        return scaled_min(p + L::dmin(b), i_load_u8(&high));
    }
};

}  // namespace quern::kernels::QUERN_ISA_NS
