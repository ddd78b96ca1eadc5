// SPDX-License-Identifier: Apache-2.0
// The tables that isa/<name>.cpp may define; which of them exist depends on the target (kernels/CMakeLists.txt).
#pragma once

#include "kernels/table.h"

namespace quern::kernels {

extern const KernelTable kTableScalar;
extern const KernelTable kTableAvx2;
extern const KernelTable kTableAvxVnni;
extern const KernelTable kTableAvx512;
extern const KernelTable kTableAmx;
extern const KernelTable kTableNeon;
extern const KernelTable kTableNeonI8mm;

}  // namespace quern::kernels
