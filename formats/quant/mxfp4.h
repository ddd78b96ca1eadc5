// SPDX-License-Identifier: Apache-2.0
// MXFP4 of the OCP Microscaling Formats specification 1.0: 32 E2M1 values under one E8M0 scale, a power of two.
// As in ggml, values are doubled to integers and the scale is halved, and the byte 255, NaN there, is 2^127 here.
#pragma once

#include "formats/quant/common.h"

namespace quern::quant {

struct BlockMXFP4 {
    std::uint8_t e;       // scale 2^(e - 128)
    std::uint8_t qs[16];  // low nibbles: values 0..15, high nibbles: values 16..31
};
static_assert(sizeof(BlockMXFP4) == 17);

struct MXFP4 {
    using Block = BlockMXFP4;
    static constexpr DType type = DType::MXFP4;
    static constexpr const char* name = "MXFP4";
    static constexpr std::uint32_t elements = 32;

    /// By code; minus zero counts as zero.
    static constexpr std::int8_t kValues[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

    /// 2^(e - 128), which is subnormal for e = 0 and e = 1.
    static float scale(std::uint32_t e) { return std::bit_cast<float>(e < 2 ? 0x00200000u << e : (e - 1) << 23); }

    static void decode(const Block& b, float* out) {
        const float d = scale(b.e);
        for (int j = 0; j < 16; ++j) {
            out[j] = static_cast<float>(kValues[b.qs[j] & 15]) * d;
            out[j + 16] = static_cast<float>(kValues[b.qs[j] >> 4]) * d;
        }
    }

    /// The largest value gets E2M1's largest exponent (section 6.3); what is above 6 of that scale saturates.
    static void encode(const float* in, Block& b) {
        float x[32];
        for (int j = 0; j < 32; ++j) x[j] = std::isnan(in[j]) ? 0.0f : std::fmin(std::fmax(in[j], -kMost), kMost);
        const float most = std::fabs(signed_max(x, 32));
        b.e = static_cast<std::uint8_t>(most > 0.0f ? clamp(std::ilogb(most) - 2 + 127, 0, 255) : 0);
        const float d = scale(b.e);
        for (int j = 0; j < 16; ++j) b.qs[j] = static_cast<std::uint8_t>(code(x[j], d) | (code(x[j + 16], d) << 4));
    }

private:
    static constexpr float kMost = 0x1.fffffep127f;

    /// Nearest value; the first one on a tie.
    static int code(float x, float d) {
        int best = 0;
        for (int c = 1; c < 16; ++c)
            if (std::fabs(static_cast<float>(kValues[c]) * d - x) < std::fabs(static_cast<float>(kValues[best]) * d - x)) best = c;
        return best;
    }
};

}  // namespace quern::quant
