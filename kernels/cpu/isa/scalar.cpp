// SPDX-License-Identifier: Apache-2.0
#define QUERN_ISA_NS scalar
#define QUERN_UNROLL_N(n)
#include "kernels/cpu/simd/scalar.h"
#include "kernels/cpu/micro/dot.inl"

namespace quern::kernels::scalar {

/// Small tiles: this table is the reference, and it runs where nothing better does.
struct Tiles {
    static constexpr int kPanels = 1;           // panels side by side in a wide tile
    static constexpr int kCols = 1;             // columns of a wide tile
    static constexpr bool kBitsMatter = false;  // the dot product depends on the width of the codes
    static constexpr int kDirectCols = 1;       // most columns of a tile without scratch
    static constexpr int kStreams = 1;          // panels side by side for a single column
    static constexpr int kPairStreams = 1;      // the same for two columns
    static constexpr int kWideFrom = 4;         // columns from which decoding to scratch pays
    static constexpr int kFloatCols = 2;        // columns of a float tile
};

}  // namespace quern::kernels::scalar

#define QUERN_TABLE kTableScalar
#define QUERN_TABLE_NAME "scalar"
#define QUERN_TABLE_NEEDS 0
#define QUERN_TABLE_PRIORITY 0
#include "kernels/cpu/isa/unit.inl"
