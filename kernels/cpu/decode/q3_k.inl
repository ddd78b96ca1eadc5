// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/cpu/decode/common.inl"

namespace quern::kernels::QUERN_ISA_NS {

struct DecodeQ3_K {
    using L = panel::Q3_K;
    static constexpr int kBits = 3, kOffset = 4;
    static constexpr bool kMin = false, kHalf = true, kSigned = false;

    QUERN_MEMBER void codes(const std::byte* p, std::size_t b, U8x64* w) {
        crumbs<0>(p + L::codes(b), w);
        add_bits<2>(p + L::codes(b) + 128, w);
    }
    QUERN_MEMBER F32x16 scale(const std::byte* p, std::size_t b, int h) {
        return scaled(p + L::d(b), i_load_s8(p + L::scale16(b, static_cast<std::size_t>(h))));
    }
};

}  // namespace quern::kernels::QUERN_ISA_NS
