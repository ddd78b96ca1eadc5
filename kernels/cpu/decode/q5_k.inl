// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/cpu/decode/common.inl"

namespace quern::kernels::QUERN_ISA_NS {

struct DecodeQ5_K {
    using L = panel::Q5_K;
    static constexpr int kBits = 5, kOffset = 0;
    static constexpr bool kMin = true, kHalf = false, kSigned = false;

    QUERN_MEMBER void codes(const std::byte* p, std::size_t b, U8x64* w) {
        nibbles(p + L::codes(b), w);
        add_bits<4>(p + L::codes(b) + 256, w);
    }
    QUERN_MEMBER F32x16 scale(const std::byte* p, std::size_t b, int) {
        return scaled(p + L::d(b), i_load_u8(p + L::scale32(b)));
    }
    QUERN_MEMBER F32x16 min(const std::byte* p, std::size_t b, int) {
        return scaled_min(p + L::dmin(b), i_load_u8(p + L::min32(b)));
    }
};

}  // namespace quern::kernels::QUERN_ISA_NS
