// SPDX-License-Identifier: Apache-2.0
// The AMX unit over emulated tiles: a table for any machine with AVX-512 VNNI.
#define QUERN_AMX_TILES "tests/kernels/amx_emulated.h"
#define QUERN_ISA_NS amx_emulated
#define QUERN_TABLE kTableAmxEmulated
#define QUERN_TABLE_NAME "amx-emulated"
#define QUERN_TABLE_NEEDS (kAvx512 | kAvx512Vnni | kAvx2 | kFma | kF16c | kBmi2)
#include "kernels/table.h"

namespace quern::kernels {
extern const KernelTable kTableAmxEmulated;
}

#include "kernels/cpu/isa/amx.cpp"
