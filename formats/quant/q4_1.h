// SPDX-License-Identifier: Apache-2.0
// Q4_1: 32 values d * q + m, q in 0..15.
#pragma once

#include "formats/quant/common.h"

namespace quern::quant {

struct BlockQ4_1 {
    std::uint16_t d;      // F16 scale
    std::uint16_t m;      // F16 minimum
    std::uint8_t qs[16];  // low nibbles: values 0..15, high nibbles: values 16..31
};
static_assert(sizeof(BlockQ4_1) == 20);

struct Q4_1 {
    using Block = BlockQ4_1;
    static constexpr DType type = DType::Q4_1;
    static constexpr const char* name = "Q4_1";
    static constexpr std::uint32_t elements = 32;

    static void decode(const Block& b, float* out) {
        const float d = f16_to_f32(b.d), m = f16_to_f32(b.m);
        for (int j = 0; j < 16; ++j) {
            out[j] = static_cast<float>(b.qs[j] & 15) * d + m;
            out[j + 16] = static_cast<float>(b.qs[j] >> 4) * d + m;
        }
    }

    static void encode(const float* in, Block& b) {
        float x[32];
        clean(in, x, 32);
        const auto [lo, hi] = min_max(x, 32);
        const float d = (hi - lo) / 15.0f;
        const float inv = inverse(d);
        b.d = f32_to_f16(d);
        b.m = f32_to_f16(lo);
        for (int j = 0; j < 16; ++j) {
            const int q0 = truncate((x[j] - lo) * inv + 0.5f, 0, 15);
            const int q1 = truncate((x[j + 16] - lo) * inv + 0.5f, 0, 15);
            b.qs[j] = static_cast<std::uint8_t>(q0 | (q1 << 4));
        }
    }
};

}  // namespace quern::quant
