// SPDX-License-Identifier: Apache-2.0
#define QUERN_ISA_NS neon
#include "kernels/cpu/simd/neon.h"
#include "kernels/cpu/micro/dot_neon.inl"

namespace quern::kernels::neon {

/// 32 registers of a quarter of the lanes. Wide: 16 rows x 3 columns take 12 for float sums, 12 for int sums, 4 for
/// codes, 3 for activations.
struct Tiles {
    static constexpr int kPanels = 1;           // panels side by side in a wide tile
    static constexpr int kCols = 3;             // columns of a wide tile
    static constexpr bool kBitsMatter = false;  // the dot product depends on the width of the codes
    static constexpr int kDirectCols = 2;       // most columns of a tile without scratch
    static constexpr int kStreams = 1;          // panels side by side for a single column
    static constexpr int kPairStreams = 1;      // the same for two columns
    static constexpr int kWideFrom = 3;         // columns from which decoding to scratch pays
    static constexpr int kFloatCols = 5;        // columns of a float tile
};

}  // namespace quern::kernels::neon

#define QUERN_TABLE kTableNeon
#define QUERN_TABLE_NAME "neon"
#define QUERN_TABLE_NEEDS (kNeon | kDotprod)
#define QUERN_TABLE_PRIORITY 20
#include "kernels/cpu/isa/unit.inl"
