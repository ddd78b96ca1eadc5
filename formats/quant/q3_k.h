// SPDX-License-Identifier: Apache-2.0
// Q3_K: 256 values in 16 groups of 16: d * (scale - 32) * (q - 4), q in 0..7, scale in 0..63.
#pragma once

#include "formats/quant/common.h"

namespace quern::quant {

struct BlockQ3_K {
    std::uint8_t hmask[32];   // third bits: byte l, bit s: value 32 s + l
    std::uint8_t qs[64];      // low two bits: half h (128 values): byte 32 h + l, bits 2 s: value 128 h + 32 s + l
    std::uint8_t scales[12];  // 16 six-bit scales: low four bits in bytes 0..7, high two in bytes 8..11
    std::uint16_t d;          // F16 scale of the scales
};
static_assert(sizeof(BlockQ3_K) == 110);

struct Q3_K {
    using Block = BlockQ3_K;
    static constexpr DType type = DType::Q3_K;
    static constexpr const char* name = "Q3_K";
    static constexpr std::uint32_t elements = kSuperBlock;

    /// Signed scale of group g (0..15), -32..31.
    static int scale(const std::uint8_t* packed, int g) {
        const int low = g < 8 ? packed[g] & 15 : packed[g - 8] >> 4;
        const int high = (packed[8 + g % 4] >> (2 * (g / 4))) & 3;
        return (low | (high << 4)) - 32;
    }

    static void decode(const Block& b, float* out) {
        const float d = f16_to_f32(b.d);
        for (int g = 0; g < 16; ++g) {
            const float dl = d * static_cast<float>(scale(b.scales, g));
            const int base = 16 * (g % 2), shift = 2 * ((g / 2) % 4);
            for (int l = 0; l < 16; ++l) {
                const int low = (b.qs[32 * (g / 8) + base + l] >> shift) & 3;
                const int high = (b.hmask[base + l] >> (g / 2)) & 1;
                out[16 * g + l] = dl * static_cast<float>(low + 4 * high - 4);
            }
        }
    }

    static void encode(const float* in, Block& b) {
        float x[kSuperBlock], fit[16];
        clean(in, x, kSuperBlock);
        b = {};
        for (int g = 0; g < 16; ++g) fit[g] = search_symmetric(x + 16 * g, 16, 4);
        const float d = signed_max(fit, 16) / -32.0f;
        b.d = f32_to_f16(d);
        const float stored = f16_to_f32(b.d), inv = inverse(stored);
        for (int g = 0; g < 16; ++g) {
            const int code = nearest_code(inv * fit[g], -32, 31);
            const int bits = code + 32;
            b.scales[g % 8] = static_cast<std::uint8_t>(b.scales[g % 8] | ((bits & 15) << (g < 8 ? 0 : 4)));
            b.scales[8 + g % 4] = static_cast<std::uint8_t>(b.scales[8 + g % 4] | ((bits >> 4) << (2 * (g / 4))));
            const float step = inverse(stored * static_cast<float>(code));
            const int base = 16 * (g % 2), shift = 2 * ((g / 2) % 4);
            for (int l = 0; l < 16; ++l) {
                const int q = nearest_code(step * x[16 * g + l], -4, 3) + 4;
                std::uint8_t& low = b.qs[32 * (g / 8) + base + l];
                low = static_cast<std::uint8_t>(low | ((q & 3) << shift));
                std::uint8_t& high = b.hmask[base + l];
                high = static_cast<std::uint8_t>(high | ((q >> 2) << (g / 2)));
            }
        }
    }
};

}  // namespace quern::quant
