// SPDX-License-Identifier: Apache-2.0
#define QUERN_ISA_NS avx512
#include "kernels/cpu/simd/avx512.h"
#include "kernels/cpu/micro/dot.inl"
#define QUERN_QUANTIZE_FORM "kernels/cpu/micro/quantize_avx512.inl"

namespace quern::kernels::avx512 {

/// 32 registers. Wide: 32 rows x 6 columns take 12 for float sums, 12 for int sums, 2 for codes, 1 for activations.
struct Tiles {
    static constexpr int kPanels = 2;           // panels side by side in a wide tile
    static constexpr int kCols = 6;             // columns of a wide tile
    static constexpr bool kBitsMatter = false;  // the dot product depends on the width of the codes
    static constexpr int kDirectCols = 8;       // most columns of a tile without scratch
    static constexpr int kStreams = 4;          // panels side by side for a single column
    static constexpr int kPairStreams = 4;      // the same for two columns
    static constexpr int kWideFrom = 17;         // columns from which decoding to scratch pays
    static constexpr int kFloatCols = 12;        // columns of a float tile
};

}  // namespace quern::kernels::avx512

#define QUERN_TABLE kTableAvx512
#define QUERN_TABLE_NAME "avx512"
#define QUERN_TABLE_NEEDS (kAvx512 | kAvx512Vnni | kAvx2 | kFma | kF16c | kBmi2)
#define QUERN_TABLE_PRIORITY 40
#include "kernels/cpu/isa/unit.inl"
