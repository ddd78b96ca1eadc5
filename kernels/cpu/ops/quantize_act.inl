// SPDX-License-Identifier: Apache-2.0
// Activations to int8 in blocks of 32.
#pragma once

#include "kernels/views.h"

namespace quern::kernels::QUERN_ISA_NS {

/// d = amax / 127, q = round to even of x * (127 / amax), clamped to +-127. Below 2^-100 the reciprocal would leave the
/// float range: such a block is all zeros. NaN does not count for amax and becomes -127.
static void quantize_act(const float* x, std::uint32_t n, std::byte* out) {
    const ActLayout at(n);
    std::int8_t* q = reinterpret_cast<std::int8_t*>(out);
    float* d = reinterpret_cast<float*>(out + at.d);
    std::int32_t* sum32 = reinterpret_cast<std::int32_t*>(out + at.sum32);
    float* dsum32 = reinterpret_cast<float*>(out + at.dsum32);
    std::int32_t* sum16 = reinterpret_cast<std::int32_t*>(out + at.sum16);
    const F32x16 top = f_set1(127.0f), bottom = f_set1(-127.0f);
    for (std::uint32_t b = 0; b < n / 32; ++b, x += 32, q += 32) {
        const F32x16 lo = f_load(x), hi = f_load(x + 16);
        const float amax = f_reduce_max(f_max(f_abs(hi), f_max(f_abs(lo), f_zero())));
        const F32x16 id = f_set1(amax >= 0x1p-100f ? 127.0f / amax : 0.0f);
        const I32x16 qlo = i_from_f(f_min(f_max(f_mul(lo, id), bottom), top));
        const I32x16 qhi = i_from_f(f_min(f_max(f_mul(hi, id), bottom), top));
        i_store_s8(q, qlo);
        i_store_s8(q + 16, qhi);
        // Sums of such small whole numbers are exact as floats.
        const std::int32_t slo = static_cast<std::int32_t>(f_reduce_add(f_from_i(qlo)));
        const std::int32_t shi = static_cast<std::int32_t>(f_reduce_add(f_from_i(qhi)));
        d[b] = amax / 127.0f;
        sum32[b] = slo + shi;
        dsum32[b] = d[b] * static_cast<float>(slo + shi);
        sum16[2 * b] = slo;
        sum16[2 * b + 1] = shi;
    }
}

}  // namespace quern::kernels::QUERN_ISA_NS
