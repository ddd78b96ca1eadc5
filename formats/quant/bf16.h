// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "formats/quant/common.h"

namespace quern::quant {

struct BlockBF16 {
    std::uint16_t bits;
};
static_assert(sizeof(BlockBF16) == 2);

struct BF16 {
    using Block = BlockBF16;
    static constexpr DType type = DType::BF16;
    static constexpr const char* name = "BF16";
    static constexpr std::uint32_t elements = 1;
    static void decode(const Block& b, float* out) { out[0] = bf16_to_f32(b.bits); }
    static void encode(const float* in, Block& b) { b.bits = f32_to_bf16(in[0]); }
};

}  // namespace quern::quant
