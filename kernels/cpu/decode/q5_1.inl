// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/cpu/decode/common.inl"

namespace quern::kernels::QUERN_ISA_NS {

struct DecodeQ5_1 {
    using L = panel::Q5_1;
    static constexpr int kBits = 5, kOffset = 0;
    static constexpr bool kMin = true, kHalf = false, kSigned = false;

    QUERN_MEMBER void codes(const std::byte* p, std::size_t b, U8x64* w) {
        nibbles(p + L::codes(b), w);
        add_bits<4>(p + L::codes(b) + 256, w);
    }
    QUERN_MEMBER F32x16 scale(const std::byte* p, std::size_t b, int) { return f_load_f16(p + L::d(b)); }
    QUERN_MEMBER F32x16 min(const std::byte* p, std::size_t b, int) { return f_load_f16(p + L::m(b)); }
};

}  // namespace quern::kernels::QUERN_ISA_NS
