// SPDX-License-Identifier: Apache-2.0
#define QUERN_ISA_NS avxvnni
#include "kernels/cpu/simd/avxvnni.h"
#include "kernels/cpu/micro/dot.inl"

namespace quern::kernels::avxvnni {

/// 16 registers. Wide: 16 rows x 4 columns take 8 for float sums, 8 for int sums, 2 for codes, 1 for activations: some
/// float sums, idle but at a block's end, stay in memory, and a loaded code meets four columns.
struct Tiles {
    static constexpr int kPanels = 1;           // panels side by side in a wide tile
    static constexpr int kCols = 4;             // columns of a wide tile
    static constexpr bool kBitsMatter = false;  // the dot product depends on the width of the codes
    static constexpr int kDirectCols = 8;       // most columns of a tile without scratch
    static constexpr int kStreams = 4;          // panels side by side for a single column
    static constexpr int kPairStreams = 2;      // the same for two columns
    static constexpr int kWideFrom = 17;        // columns from which decoding to scratch pays
    static constexpr int kFloatCols = 5;        // columns of a float tile
};

}  // namespace quern::kernels::avxvnni

#define QUERN_TABLE kTableAvxVnni
#define QUERN_TABLE_NAME "avxvnni"
#define QUERN_TABLE_NEEDS (kAvxVnni | kAvx2 | kFma | kF16c | kBmi2)
#define QUERN_TABLE_PRIORITY 30
#include "kernels/cpu/isa/unit.inl"
