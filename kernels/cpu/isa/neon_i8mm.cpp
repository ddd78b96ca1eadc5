// SPDX-License-Identifier: Apache-2.0
#define QUERN_ISA_NS neon_i8mm
#include "kernels/cpu/simd/neon.h"
#include "kernels/cpu/micro/dot_neon.inl"
#define QUERN_WIDE_FORM "kernels/cpu/micro/wide_i8mm.inl"

namespace quern::kernels::neon_i8mm {

/// As neon.cpp, except for the wide tile, whose registers micro/wide_i8mm.inl counts.
struct Tiles {
    static constexpr int kPanels = 1;           // panels side by side in a wide tile
    static constexpr int kCols = 6;             // columns of a wide tile
    static constexpr bool kBitsMatter = false;  // the dot product depends on the width of the codes
    static constexpr int kDirectCols = 2;       // most columns of a tile without scratch
    static constexpr int kStreams = 1;          // panels side by side for a single column
    static constexpr int kPairStreams = 1;      // the same for two columns
    static constexpr int kWideFrom = 3;         // columns from which decoding to scratch pays
    static constexpr int kFloatCols = 5;        // columns of a float tile
};

}  // namespace quern::kernels::neon_i8mm

#define QUERN_TABLE kTableNeonI8mm
#define QUERN_TABLE_NAME "neon-i8mm"
#define QUERN_TABLE_NEEDS (kNeon | kDotprod | kI8mm)
#define QUERN_TABLE_PRIORITY 30
#include "kernels/cpu/isa/unit.inl"
