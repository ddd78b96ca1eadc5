// SPDX-License-Identifier: Apache-2.0
// RMS norm and the element-wise helpers. Order of rms_norm: 16 partial sums of squares (lane = index mod 16) by FMA in
// ascending order, the tree of f_reduce_add, then mean, square root and reciprocal as scalars.
#pragma once

namespace quern::kernels::QUERN_ISA_NS {

static void rms_norm(const float* x, const float* w, float eps, std::uint32_t n, float* out) {
    const std::uint32_t whole = n & ~15u;
    const int tail = static_cast<int>(n & 15u);
    F32x16 sum = f_zero();
    for (std::uint32_t i = 0; i < whole; i += 16) {
        const F32x16 v = f_load(x + i);
        sum = f_fma(v, v, sum);
    }
    if (tail) {
        const F32x16 v = f_load_n(x + whole, tail);
        sum = f_fma(v, v, sum);
    }
    const float mean = f_reduce_add(sum) / static_cast<float>(n);
    const F32x16 inv = f_set1(1.0f / __builtin_sqrtf(mean + eps));
    for (std::uint32_t i = 0; i < whole; i += 16) {
        const F32x16 v = f_mul(f_load(x + i), inv);
        f_store(out + i, w ? f_mul(v, f_load(w + i)) : v);
    }
    if (tail) {
        const F32x16 v = f_mul(f_load_n(x + whole, tail), inv);
        f_store_n(out + whole, w ? f_mul(v, f_load_n(w + whole, tail)) : v, tail);
    }
}

static void add(const float* a, const float* b, std::uint32_t n, float* out) {
    const std::uint32_t whole = n & ~15u;
    const int tail = static_cast<int>(n & 15u);
    for (std::uint32_t i = 0; i < whole; i += 16) f_store(out + i, f_add(f_load(a + i), f_load(b + i)));
    if (tail) f_store_n(out + whole, f_add(f_load_n(a + whole, tail), f_load_n(b + whole, tail)), tail);
}

static void scale(const float* a, float s, std::uint32_t n, float* out) {
    const std::uint32_t whole = n & ~15u;
    const int tail = static_cast<int>(n & 15u);
    for (std::uint32_t i = 0; i < whole; i += 16) f_store(out + i, f_mul(f_load(a + i), f_set1(s)));
    if (tail) f_store_n(out + whole, f_mul(f_load_n(a + whole, tail), f_set1(s)), tail);
}

}  // namespace quern::kernels::QUERN_ISA_NS
