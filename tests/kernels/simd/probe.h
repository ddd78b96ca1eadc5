// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace quern::kernels {

constexpr int kMostProbes = 80;
constexpr int kProbeInput = 320;  // bytes

struct Probe {
    const char* name;
    bool floats;  // which of two NaN operands a sum or product keeps is the compiler's choice, so NaNs count as equal
    unsigned char bytes[64];
};

}  // namespace quern::kernels
