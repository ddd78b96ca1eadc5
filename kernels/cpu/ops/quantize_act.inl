// SPDX-License-Identifier: Apache-2.0
// Activations to int8 in blocks of 32.
#pragma once

#include "kernels/views.h"

namespace quern::kernels::QUERN_ISA_NS {

struct ActPair { F32x16 lo, hi; };   // 32 values

/// Block b of a column: d = amax / 127, q = round to even of x * (127 / amax), clamped to +-127. Below 2^-100 the
/// reciprocal would leave the float range: such a block is all zeros. NaN does not count for amax and becomes -127.
/// Returns what rounding lost, x - d * q.
QUERN_INLINE ActPair quantize_block(ActPair x, std::uint32_t b, const ActLayout& at, std::byte* out) {
    std::int8_t* q = reinterpret_cast<std::int8_t*>(out) + 32 * b;
    const F32x16 top = f_set1(127.0f), bottom = f_set1(-127.0f);
    const float amax = f_reduce_max(f_max(f_abs(x.hi), f_max(f_abs(x.lo), f_zero())));
    const F32x16 id = f_set1(amax >= 0x1p-100f ? 127.0f / amax : 0.0f);
    const I32x16 qlo = i_from_f(f_min(f_max(f_mul(x.lo, id), bottom), top));
    const I32x16 qhi = i_from_f(f_min(f_max(f_mul(x.hi, id), bottom), top));
    i_store_s8(q, qlo);
    i_store_s8(q + 16, qhi);
    // Sums of such small whole numbers are exact as floats.
    const F32x16 flo = f_from_i(qlo), fhi = f_from_i(qhi);
    const std::int32_t slo = static_cast<std::int32_t>(f_reduce_add(flo));
    const std::int32_t shi = static_cast<std::int32_t>(f_reduce_add(fhi));
    const float d = amax / 127.0f;
    reinterpret_cast<float*>(out + at.d)[b] = d;
    reinterpret_cast<std::int32_t*>(out + at.sum32)[b] = slo + shi;
    reinterpret_cast<float*>(out + at.dsum32)[b] = d * static_cast<float>(slo + shi);
    reinterpret_cast<std::int32_t*>(out + at.sum16)[2 * b] = slo;
    reinterpret_cast<std::int32_t*>(out + at.sum16)[2 * b + 1] = shi;
    const F32x16 minus_d = f_set1(-d);
    return {f_fma(minus_d, flo, x.lo), f_fma(minus_d, fhi, x.hi)};
}

/// Block b of a column from x[32]; with Fine what rounding lost, too, to the column behind out.
template <bool Fine>
QUERN_INLINE void quantize_one(const float* x, std::uint32_t b, const ActLayout& at, std::byte* out) {
    const ActPair lost = quantize_block({f_load(x), f_load(x + 16)}, b, at, out);
    if constexpr (Fine) quantize_block(lost, b, at, out + at.bytes);
}

#ifndef QUERN_QUANTIZE_FORM
/// Blocks [b, end).
template <bool Fine>
QUERN_INLINE void quantize_blocks(const float* x, std::uint32_t b, std::uint32_t end, const ActLayout& at, std::byte* out) {
    for (; b < end; ++b, x += 32) quantize_one<Fine>(x, b, at, out);
}
#endif

}  // namespace quern::kernels::QUERN_ISA_NS

#ifdef QUERN_QUANTIZE_FORM
#include QUERN_QUANTIZE_FORM
#endif

namespace quern::kernels::QUERN_ISA_NS {

static void quantize_act(const float* x, std::uint32_t first, std::uint32_t count, std::uint32_t n, std::byte* out) {
    quantize_blocks<false>(x, first / 32, (first + count) / 32, ActLayout(n), out);
}

static void quantize_act_fine(const float* x, std::uint32_t first, std::uint32_t count, std::uint32_t n, std::byte* out) {
    quantize_blocks<true>(x, first / 32, (first + count) / 32, ActLayout(n), out);
}

}  // namespace quern::kernels::QUERN_ISA_NS
