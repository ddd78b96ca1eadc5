// SPDX-License-Identifier: Apache-2.0
// Q5_K: 256 values in 8 groups of 32: d * scale * q - dmin * min, q in 0..31, scale and min in 0..63.
#pragma once

#include "formats/quant/common.h"

namespace quern::quant {

struct BlockQ5_K {
    std::uint16_t d;          // F16 scale of the scales
    std::uint16_t dmin;       // F16 scale of the mins
    std::uint8_t scales[12];  // eight six-bit scales and mins, see unpack_scale_min
    std::uint8_t qh[32];      // fifth bits: byte l, bit g: value 32 g + l
    std::uint8_t qs[128];     // pair p: bytes 32 p + l, low nibble: value 64 p + l, high nibble: value 64 p + 32 + l
};
static_assert(sizeof(BlockQ5_K) == 176);

struct Q5_K {
    using Block = BlockQ5_K;
    static constexpr DType type = DType::Q5_K;
    static constexpr const char* name = "Q5_K";
    static constexpr std::uint32_t elements = kSuperBlock;

    static void decode(const Block& b, float* out) {
        const float d = f16_to_f32(b.d), dmin = f16_to_f32(b.dmin);
        for (int g = 0; g < 8; ++g) {
            const ScaleMin sm = unpack_scale_min(b.scales, g);
            const float scale = d * static_cast<float>(sm.scale), min = dmin * static_cast<float>(sm.min);
            const std::uint8_t* q = b.qs + 32 * (g / 2);
            const int shift = 4 * (g % 2);
            for (int l = 0; l < 32; ++l) {
                const int code = ((q[l] >> shift) & 15) + 16 * ((b.qh[l] >> g) & 1);
                out[32 * g + l] = scale * static_cast<float>(code) - min;
            }
        }
    }

    static void encode(const float* in, Block& b) {
        float x[kSuperBlock];
        clean(in, x, kSuperBlock);
        b = {};
        const AffineScales s = fit_groups_of_32(x, 31, b.scales);
        b.d = s.d;
        b.dmin = s.dmin;
        for (int g = 0; g < 8; ++g) {
            std::uint8_t* q = b.qs + 32 * (g / 2);
            const int shift = 4 * (g % 2);
            for (int l = 0; l < 32; ++l) {
                const int code = s.value_code(g, x[32 * g + l], 31);
                q[l] = static_cast<std::uint8_t>(q[l] | ((code & 15) << shift));
                b.qh[l] = static_cast<std::uint8_t>(b.qh[l] | ((code >> 4) << g));
            }
        }
    }
};

}  // namespace quern::quant
