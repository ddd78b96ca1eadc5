// SPDX-License-Identifier: Apache-2.0
// Q2_K: 256 values in 16 groups of 16: d * scale * q - dmin * min, q in 0..3, scale and min in 0..15.
#pragma once

#include "formats/quant/common.h"

namespace quern::quant {

struct BlockQ2_K {
    std::uint8_t scales[16];  // group g: scale in the low nibble, min in the high nibble
    std::uint8_t qs[64];      // half h (128 values): byte 32 h + l, bits 2 s: value 128 h + 32 s + l
    std::uint16_t d;          // F16 scale of the scales
    std::uint16_t dmin;       // F16 scale of the mins
};
static_assert(sizeof(BlockQ2_K) == 84);

struct Q2_K {
    using Block = BlockQ2_K;
    static constexpr DType type = DType::Q2_K;
    static constexpr const char* name = "Q2_K";
    static constexpr std::uint32_t elements = kSuperBlock;

    static void decode(const Block& b, float* out) {
        const float d = f16_to_f32(b.d), dmin = f16_to_f32(b.dmin);
        for (int g = 0; g < 16; ++g) {
            const float scale = d * static_cast<float>(b.scales[g] & 15);
            const float min = dmin * static_cast<float>(b.scales[g] >> 4);
            const std::uint8_t* q = b.qs + 32 * (g / 8) + 16 * (g % 2);
            const int shift = 2 * ((g / 2) % 4);
            for (int l = 0; l < 16; ++l) out[16 * g + l] = scale * static_cast<float>((q[l] >> shift) & 3) - min;
        }
    }

    static void encode(const float* in, Block& b) {
        float x[kSuperBlock];
        clean(in, x, kSuperBlock);
        Affine fit[16];
        b = {};
        for (int g = 0; g < 16; ++g) fit[g] = search_affine(x + 16 * g, 16, 3);
        const AffineScales s = share_scales(fit, 16, 15);
        b.d = s.d;
        b.dmin = s.dmin;
        for (int g = 0; g < 16; ++g) {
            b.scales[g] = static_cast<std::uint8_t>(s.code[g].scale | (s.code[g].min << 4));
            std::uint8_t* q = b.qs + 32 * (g / 8) + 16 * (g % 2);
            const int shift = 2 * ((g / 2) % 4);
            for (int l = 0; l < 16; ++l) {
                q[l] = static_cast<std::uint8_t>(q[l] | (s.value_code(g, x[16 * g + l], 3) << shift));
            }
        }
    }
};

}  // namespace quern::quant
