// SPDX-License-Identifier: Apache-2.0
// Gated activations. silu(x) = x / (1 + exp(-x)). The tanh form of gelu, x (1 + tanh(u)) / 2 with
// u = sqrt(2 / pi) (x + 0.044715 x^3), equals x / (1 + exp(-2u)): no cancellation for negative x, one exp for both.
#pragma once

#include "kernels/cpu/ops/math.inl"

namespace quern::kernels::QUERN_ISA_NS {

QUERN_INLINE F32x16 f_silu(F32x16 x) {
    const F32x16 e = f_exp(f_sub(f_zero(), x));
    return f_div(x, f_add(e, f_set1(1.0f)));
}

QUERN_INLINE F32x16 f_gelu(F32x16 x) {
    const F32x16 poly = f_fma(f_mul(x, x), f_set1(0.044715f), f_set1(1.0f));
    const F32x16 e = f_exp(f_mul(f_mul(x, f_set1(-1.5957691216f)), poly));  // -2 sqrt(2 / pi)
    return f_div(x, f_add(e, f_set1(1.0f)));
}

static void swiglu(const float* gate, const float* up, std::uint32_t n, float* out) {
    const std::uint32_t whole = n & ~15u;
    const int tail = static_cast<int>(n & 15u);
    for (std::uint32_t i = 0; i < whole; i += 16) f_store(out + i, f_mul(f_silu(f_load(gate + i)), f_load(up + i)));
    if (tail) f_store_n(out + whole, f_mul(f_silu(f_load_n(gate + whole, tail)), f_load_n(up + whole, tail)), tail);
}

static void geglu(const float* gate, const float* up, std::uint32_t n, float* out) {
    const std::uint32_t whole = n & ~15u;
    const int tail = static_cast<int>(n & 15u);
    for (std::uint32_t i = 0; i < whole; i += 16) f_store(out + i, f_mul(f_gelu(f_load(gate + i)), f_load(up + i)));
    if (tail) f_store_n(out + whole, f_mul(f_gelu(f_load_n(gate + whole, tail)), f_load_n(up + whole, tail)), tail);
}

}  // namespace quern::kernels::QUERN_ISA_NS
