// SPDX-License-Identifier: Apache-2.0
// Greedy choice: one vector pass finds the block that holds the maximum first, then that block is searched.
#pragma once

namespace quern::kernels::QUERN_ISA_NS {

static std::uint32_t argmax(const float* x, std::uint32_t n) {
    constexpr std::uint32_t kBlock = 1024;
    float best = bits_f32(0xff800000u);  // -infinity
    std::uint32_t start = 0;
    for (std::uint32_t b = 0; b < n; b += kBlock) {
        const std::uint32_t end = n - b < kBlock ? n : b + kBlock;
        F32x16 m = f_set1(best);
        std::uint32_t i = b;
        for (; i + 16 <= end; i += 16) m = f_max(f_load(x + i), m);  // NaN in the first operand gives the second
        float top = f_reduce_max(m);
        for (; i < end; ++i) top = x[i] > top ? x[i] : top;
        if (top > best) {
            best = top;
            start = b;
        }
    }
    for (std::uint32_t i = start; i < n; ++i)
        if (x[i] == best) return i;
    return 0;  // nothing but NaN
}

}  // namespace quern::kernels::QUERN_ISA_NS
