// SPDX-License-Identifier: Apache-2.0
// AVX-512 with AMX's tiles for quantized weights that meet many columns. tests/kernels/amx_emulated.cpp builds this unit
// a second time under another name, for machines without AMX.
#ifndef QUERN_AMX_TILES
#define QUERN_ISA_NS amx
#define QUERN_TABLE kTableAmx
#define QUERN_TABLE_NAME "amx"
#define QUERN_TABLE_NEEDS (kAmxInt8 | kAvx512 | kAvx512Vnni | kAvx2 | kFma | kF16c | kBmi2)
#endif
#include "kernels/cpu/simd/avx512.h"
#include "kernels/cpu/micro/dot.inl"
#define QUERN_QUANTIZE_FORM "kernels/cpu/micro/quantize_avx512.inl"
#define QUERN_WIDE_FORM "kernels/cpu/micro/wide_amx.inl"

namespace quern::kernels::QUERN_ISA_NS {

/// As on AVX-512 but for the wide tile: 16 columns, one panel's sums in 16 registers at a time.
struct Tiles {
    static constexpr int kPanels = 2;           // panels side by side in a wide tile
    static constexpr int kCols = 16;            // columns of a wide tile
    static constexpr bool kBitsMatter = false;  // the dot product depends on the width of the codes
    static constexpr int kDirectCols = 8;       // most columns of a tile without scratch
    static constexpr int kStreams = 4;          // panels side by side for a single column
    static constexpr int kPairStreams = 4;      // the same for two columns
    static constexpr int kWideFrom = 17;        // columns from which decoding to scratch pays; not measured
    static constexpr int kFloatCols = 12;       // columns of a float tile
};

}  // namespace quern::kernels::QUERN_ISA_NS

#define QUERN_TABLE_PRIORITY 50
#include "kernels/cpu/isa/unit.inl"
