// SPDX-License-Identifier: Apache-2.0
// Q4_0: 32 values d * (q - 8), q in 0..15.
#pragma once

#include "formats/quant/common.h"

namespace quern::quant {

struct BlockQ4_0 {
    std::uint16_t d;      // F16 scale
    std::uint8_t qs[16];  // low nibbles: values 0..15, high nibbles: values 16..31
};
static_assert(sizeof(BlockQ4_0) == 18);

struct Q4_0 {
    using Block = BlockQ4_0;
    static constexpr DType type = DType::Q4_0;
    static constexpr const char* name = "Q4_0";
    static constexpr std::uint32_t elements = 32;

    static void decode(const Block& b, float* out) {
        const float d = f16_to_f32(b.d);
        for (int j = 0; j < 16; ++j) {
            out[j] = static_cast<float>((b.qs[j] & 15) - 8) * d;
            out[j + 16] = static_cast<float>((b.qs[j] >> 4) - 8) * d;
        }
    }

    /// The extreme value maps to code 0 (-8), the code range being one longer on that side.
    static void encode(const float* in, Block& b) {
        float x[32];
        clean(in, x, 32);
        const float d = signed_max(x, 32) / -8.0f;
        const float inv = inverse(d);
        b.d = f32_to_f16(d);
        for (int j = 0; j < 16; ++j) {
            const int lo = truncate(x[j] * inv + 8.5f, 0, 15);
            const int hi = truncate(x[j + 16] * inv + 8.5f, 0, 15);
            b.qs[j] = static_cast<std::uint8_t>(lo | (hi << 4));
        }
    }
};

}  // namespace quern::quant
