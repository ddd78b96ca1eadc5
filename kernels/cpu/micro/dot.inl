// SPDX-License-Identifier: Apache-2.0
// Dot product of N code vectors with 4 N activations, one vector a step: the plain form, over the vocabulary.
#pragma once

namespace quern::kernels::QUERN_ISA_NS {

/// kBits and kSigned describe the codes, N is the number of steps; g counts them and is a constant after unrolling.
template <int kBits, bool kSigned, int N>
struct Dot {
    I32x16 sum;
    inline __attribute__((always_inline)) void begin(I32x16 init) { sum = init; }
    inline __attribute__((always_inline)) void step(int, U8x64 w, const std::int8_t* x) {
        if constexpr (kSigned) {
            sum = i_dot_s8(sum, w, x);
        } else {
            sum = i_dot_u7(sum, w, x);
        }
    }
    inline __attribute__((always_inline)) I32x16 end() const { return sum; }
};

}  // namespace quern::kernels::QUERN_ISA_NS
