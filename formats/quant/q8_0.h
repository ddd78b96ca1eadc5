// SPDX-License-Identifier: Apache-2.0
// Q8_0: 32 values d * q, q in -127..127 from the encoder (files may hold -128).
#pragma once

#include "formats/quant/common.h"

namespace quern::quant {

struct BlockQ8_0 {
    std::uint16_t d;  // F16 scale
    std::int8_t qs[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

struct Q8_0 {
    using Block = BlockQ8_0;
    static constexpr DType type = DType::Q8_0;
    static constexpr const char* name = "Q8_0";
    static constexpr std::uint32_t elements = 32;

    static void decode(const Block& b, float* out) {
        const float d = f16_to_f32(b.d);
        for (int j = 0; j < 32; ++j) out[j] = static_cast<float>(b.qs[j]) * d;
    }

    /// Ties are rounded away from zero, as ggml's reference does.
    static void encode(const float* in, Block& b) {
        float x[32];
        clean(in, x, 32);
        const float d = std::fabs(signed_max(x, 32)) / 127.0f;
        const float inv = inverse(d);
        b.d = f32_to_f16(d);
        for (int j = 0; j < 32; ++j) {
            b.qs[j] = static_cast<std::int8_t>(std::fmin(std::fmax(std::round(x[j] * inv), -127.0f), 127.0f));
        }
    }
};

}  // namespace quern::quant
