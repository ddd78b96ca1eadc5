// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/cpu/decode/common.inl"

namespace quern::kernels::QUERN_ISA_NS {

struct DecodeQ5_0 {
    using L = panel::Q5_0;
    static constexpr int kBits = 5, kOffset = 16;
    static constexpr bool kMin = false, kHalf = false, kSigned = false;

    QUERN_MEMBER void codes(const std::byte* p, std::size_t b, U8x64* w) {
        nibbles(p + L::codes(b), w);
        add_bits<4>(p + L::codes(b) + 256, w);
    }
    QUERN_MEMBER F32x16 scale(const std::byte* p, std::size_t b, int) { return f_load_f16(p + L::d(b)); }
};

}  // namespace quern::kernels::QUERN_ISA_NS
