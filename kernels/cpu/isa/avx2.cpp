// SPDX-License-Identifier: Apache-2.0
#define QUERN_ISA_NS avx2
#include "kernels/cpu/simd/avx2.h"
#include "kernels/cpu/micro/dot_avx2.inl"
#define QUERN_WIDE_FORM "kernels/cpu/micro/wide_avx2.inl"

namespace quern::kernels::avx2 {

/// 16 registers. Wide: 16 rows x 3 columns take 6 for float sums, 6 for 16-bit sums, 2 for codes, 1 for activations, 1
/// for the ones of vpmaddwd. More direct columns spill float sums, which costs less than decoding a block again.
struct Tiles {
    static constexpr int kPanels = 1;           // panels side by side in a wide tile
    static constexpr int kCols = 3;             // columns of a wide tile
    static constexpr bool kBitsMatter = true;   // the dot product depends on the width of the codes
    static constexpr int kDirectCols = 8;       // most columns of a tile without scratch
    static constexpr int kStreams = 4;          // panels side by side for a single column
    static constexpr int kPairStreams = 2;      // the same for two columns
    static constexpr int kWideFrom = 17;        // columns from which decoding to scratch pays
    static constexpr int kFloatCols = 5;        // columns of a float tile
};

}  // namespace quern::kernels::avx2

#define QUERN_TABLE kTableAvx2
#define QUERN_TABLE_NAME "avx2"
#define QUERN_TABLE_NEEDS (kAvx2 | kFma | kF16c | kBmi2)
#define QUERN_TABLE_PRIORITY 20
#include "kernels/cpu/isa/unit.inl"
