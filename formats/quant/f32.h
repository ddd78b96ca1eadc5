// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "formats/quant/common.h"

namespace quern::quant {

struct BlockF32 {
    float value;
};
static_assert(sizeof(BlockF32) == 4);

struct F32 {
    using Block = BlockF32;
    static constexpr DType type = DType::F32;
    static constexpr const char* name = "F32";
    static constexpr std::uint32_t elements = 1;
    static void decode(const Block& b, float* out) { out[0] = b.value; }
    static void encode(const float* in, Block& b) { b.value = in[0]; }
};

}  // namespace quern::quant
