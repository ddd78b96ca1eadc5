// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "formats/quant/common.h"

namespace quern::quant {

struct BlockF16 {
    std::uint16_t bits;
};
static_assert(sizeof(BlockF16) == 2);

struct F16 {
    using Block = BlockF16;
    static constexpr DType type = DType::F16;
    static constexpr const char* name = "F16";
    static constexpr std::uint32_t elements = 1;
    static void decode(const Block& b, float* out) { out[0] = f16_to_f32(b.bits); }
    static void encode(const float* in, Block& b) { b.bits = f32_to_f16(in[0]); }
};

}  // namespace quern::quant
