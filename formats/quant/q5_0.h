// SPDX-License-Identifier: Apache-2.0
// Q5_0: 32 values d * (q - 16), q in 0..31.
#pragma once

#include "formats/quant/common.h"

namespace quern::quant {

struct BlockQ5_0 {
    std::uint16_t d;      // F16 scale
    std::uint8_t qh[4];   // fifth bits, little-endian: bit i belongs to value i
    std::uint8_t qs[16];  // low nibbles: values 0..15, high nibbles: values 16..31
};
static_assert(sizeof(BlockQ5_0) == 22);

struct Q5_0 {
    using Block = BlockQ5_0;
    static constexpr DType type = DType::Q5_0;
    static constexpr const char* name = "Q5_0";
    static constexpr std::uint32_t elements = 32;

    static void decode(const Block& b, float* out) {
        const float d = f16_to_f32(b.d);
        for (int i = 0; i < 32; ++i) out[i] = static_cast<float>(five_bit_code(b.qs, b.qh, i) - 16) * d;
    }

    static void encode(const float* in, Block& b) {
        float x[32];
        clean(in, x, 32);
        const float d = signed_max(x, 32) / -16.0f;
        const float inv = inverse(d);
        b = {};
        b.d = f32_to_f16(d);
        for (int i = 0; i < 32; ++i) set_five_bit_code(b.qs, b.qh, i, truncate(x[i] * inv + 16.5f, 0, 31));
    }
};

}  // namespace quern::quant
