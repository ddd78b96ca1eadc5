// SPDX-License-Identifier: Apache-2.0
// Q6_K: 256 values in 16 groups of 16: d * scale * (q - 32), q in 0..63, scale a signed byte.
#pragma once

#include "formats/quant/common.h"

namespace quern::quant {

struct BlockQ6_K {
    std::uint8_t ql[128];    // low nibbles; half h (128 values), quarter r: byte 64 h + 32 (r % 2) + l, nibble r / 2
    std::uint8_t qh[64];     // high two bits; byte 32 h + l, bits 2 r: value 128 h + 32 r + l
    std::int8_t scales[16];  // group g: values 16 g .. 16 g + 15
    std::uint16_t d;         // F16 scale of the scales
};
static_assert(sizeof(BlockQ6_K) == 210);

struct Q6_K {
    using Block = BlockQ6_K;
    static constexpr DType type = DType::Q6_K;
    static constexpr const char* name = "Q6_K";
    static constexpr std::uint32_t elements = kSuperBlock;

    static void decode(const Block& b, float* out) {
        const float d = f16_to_f32(b.d);
        for (int i = 0; i < 256; ++i) {
            const int h = i / 128, r = (i / 32) % 4, l = i % 32;
            const int low = (b.ql[64 * h + 32 * (r % 2) + l] >> (4 * (r / 2))) & 15;
            const int high = (b.qh[32 * h + l] >> (2 * r)) & 3;
            out[i] = d * static_cast<float>(b.scales[i / 16]) * static_cast<float>((low | (high << 4)) - 32);
        }
    }

    static void encode(const float* in, Block& b) {
        float x[kSuperBlock], fit[16];
        clean(in, x, kSuperBlock);
        b = {};
        for (int g = 0; g < 16; ++g) fit[g] = search_symmetric(x + 16 * g, 16, 32);
        b.d = f32_to_f16(signed_max(fit, 16) / -128.0f);
        const float stored = f16_to_f32(b.d), inv = inverse(stored);
        float step[16];
        for (int g = 0; g < 16; ++g) {
            b.scales[g] = static_cast<std::int8_t>(nearest_code(inv * fit[g], -128, 127));
            step[g] = inverse(stored * static_cast<float>(b.scales[g]));
        }
        for (int i = 0; i < 256; ++i) {
            const int h = i / 128, r = (i / 32) % 4, l = i % 32;
            const int code = nearest_code(step[i / 16] * x[i], -32, 31) + 32;
            std::uint8_t& low = b.ql[64 * h + 32 * (r % 2) + l];
            low = static_cast<std::uint8_t>(low | ((code & 15) << (4 * (r / 2))));
            std::uint8_t& high = b.qh[32 * h + l];
            high = static_cast<std::uint8_t>(high | ((code >> 4) << (2 * r)));
        }
    }
};

}  // namespace quern::quant
