// SPDX-License-Identifier: Apache-2.0
// A group of 32 tokens of one head from F16 pages to Q8 or Q4 (layout: KvQuantLayout in kernels/views.h). Scales are
// rounded before the codes are chosen; codes are rounded to nearest even.
// Q8: scale = max|x| / 127 as F16, code = x * (1 / scale) within +-127.
// Q4, K: scale = max((max - min) / 14.75, |min| * 4 / 126), rounded up to a byte scale; zero = 4 * min * (1 / scale) rounded
// down; code = x * (1 / scale) - zero / 4 within 0 .. 15. So nothing is cut off.
// Q4, V: scale = (max - min) / 15 as F16, minimum exact (an F16 value), code = (x - min) * (1 / scale).
// NaN becomes the smallest code, as does 0 * infinity where a scale is 0.
#pragma once

#include "kernels/views.h"

namespace quern::kernels::QUERN_ISA_NS {

/// x clamped to lo .. hi and rounded; NaN becomes lo.
QUERN_INLINE I32x16 kv_code(F32x16 x, float lo, float hi) { return i_from_f(f_min(f_max(x, f_set1(lo)), f_set1(hi))); }

/// F16 scales of 16 channels or tokens to memory, and the reciprocals of what they were rounded to.
QUERN_INLINE void kv_scales(F32x16 s, std::byte* out, float* inv) {
    f_store_f16(out, s);
    f_store(inv, f_div(f_set1(1.0f), f_load_f16(out)));
}

/// Scale and zero of one channel of K in Q4. The least scale is 2^-14, the greatest 2^16 * 1.875.
QUERN_INLINE void kv_affine(float min, float max, std::uint8_t& scale, std::int8_t& zero, float& inv) {
    const float range = (max - min) / 14.75f, need = (min < 0 ? -min : min) * (4.0f / 126.0f);
    const float s = range > need ? range : need;
    const std::uint32_t code = s <= 0x1p-14f ? 8 : s < 0x1.cp16f ? (f32_bits(s * 0x1p-112f) + (1u << 20) - 1) >> 20 : 255;
    scale = static_cast<std::uint8_t>(code);
    inv = 1.0f / (bits_f32(code << 20) * 0x1p112f);
    alignas(64) std::int8_t z[16];
    i_store_s8(z, kv_code(f_set1(4.0f * min * inv - 0.5f), -127.0f, 127.0f));   // down, or exact
    zero = z[0];
}

QUERN_INLINE float f_reduce_min(F32x16 a) { return -f_reduce_max(f_sub(f_zero(), a)); }

/// k: the two tiles of 16 tokens, [head_dim][16] halves each.
template <KvFormat F>
static void kv_quantize_k(const std::byte* const* k, int n_d, const KvQuantLayout& at, std::byte* out) {
    for (int d0 = 0; d0 < n_d; d0 += 16) {
        const int n = n_d - d0 < 16 ? n_d - d0 : 16;
        alignas(64) std::uint8_t scale[16] = {};
        alignas(64) std::int8_t zero[16] = {};
        alignas(64) float most[16] = {}, inv[16];
        for (int c = 0; c < n; ++c) {
            const std::ptrdiff_t d = std::ptrdiff_t{32} * (d0 + c);
            const F32x16 a = f_load_f16(k[0] + d), b = f_load_f16(k[1] + d);
            if constexpr (F == KvFormat::Q4)
                kv_affine(f_reduce_min(f_min(a, b)), f_reduce_max(f_max(a, b)), scale[c], zero[c], inv[c]);
            else most[c] = f_reduce_max(f_max(f_abs(a), f_abs(b)));
        }
        if constexpr (F == KvFormat::Q4) {
            __builtin_memcpy(out + at.k_scale + d0, scale, 16);
            __builtin_memcpy(out + at.k_zero + d0, zero, 16);
        } else {
            kv_scales(f_div(f_load(most), f_set1(127.0f)), out + at.k_scale + d0 * 2, inv);
        }
        for (int c0 = 0; c0 < n; c0 += 4) {
            I32x16 word = i_zero();
            for (int c = c0; c < c0 + 4 && c < n; ++c)
                for (int j = 0; j < 2; ++j) {
                    const F32x16 x = f_mul(f_load_f16(k[j] + std::ptrdiff_t{32} * (d0 + c)), f_set1(inv[c]));
                    if constexpr (F == KvFormat::Q4) {
                        const I32x16 code = kv_code(f_sub(x, f_set1(0.25f * static_cast<float>(zero[c]))), 0.0f, 15.0f);
                        word = i_add(word, i_mul(code, i_set1(static_cast<std::int32_t>(1u << (8 * (c - c0) + 4 * j)))));
                    } else {
                        i_store_s8(reinterpret_cast<std::int8_t*>(out) + (d0 + c) * 32 + j * 16, kv_code(x, -127.0f, 127.0f));
                    }
                }
            if constexpr (F == KvFormat::Q4) i_store(reinterpret_cast<std::int32_t*>(out + (d0 + c0) * 16), word);
        }
    }
}

/// 16 tokens from token t0 of the group on; v: the first one's row, [16][pitch] halves.
template <KvFormat F>
static void kv_quantize_v(const std::byte* v, int n_d, int t0, const KvQuantLayout& at, std::byte* out) {
    const int columns = (n_d + 15) / 16;
    const std::ptrdiff_t pitch = std::ptrdiff_t{32} * columns;
    alignas(64) float least[16], most[16], inv[16];
    for (int t = 0; t < 16; ++t) {
        alignas(64) float first[16];
        f_store(first, f_load_f16(v + t * pitch));
        F32x16 lo = f_set1(first[0]), hi = lo;
        for (int c = 0; c < columns; ++c) {
            const int n = n_d - c * 16 < 16 ? n_d - c * 16 : 16;   // the rest is padding
            const F32x16 x = f_select_n(f_load_f16(v + t * pitch + c * 32), f_set1(first[0]), n);
            lo = f_min(lo, x);
            hi = f_max(hi, x);
        }
        least[t] = f_reduce_min(lo);
        most[t] = f_reduce_max(hi);
    }
    const F32x16 lo = f_load(least), hi = f_load(most);
    const F32x16 s = F == KvFormat::Q4 ? f_div(f_sub(hi, lo), f_set1(15.0f)) : f_div(f_max(f_abs(hi), f_abs(lo)), f_set1(127.0f));
    kv_scales(s, out + at.v_scale + t0 * 2, inv);
    if constexpr (F == KvFormat::Q4) f_store_f16(out + at.v_min + t0 * 2, lo);
    for (int c = 0; c < columns; ++c)
        for (int u = 0; u < 2; ++u) {
            I32x16 word = i_zero();
            for (int i = 0; i < 8; ++i) {
                const int t = u * 8 + i;
                const F32x16 x = f_load_f16(v + t * pitch + c * 32);
                if constexpr (F == KvFormat::Q4) {
                    const I32x16 code = kv_code(f_mul(f_sub(x, f_set1(least[t])), f_set1(inv[t])), 0.0f, 15.0f);
                    word = i_add(word, i_mul(code, i_set1(static_cast<std::int32_t>(1u << (4 * i)))));
                } else {
                    i_store_s8(reinterpret_cast<std::int8_t*>(out + at.v_codes) + (c * 32 + t0 + t) * 16,
                               kv_code(f_mul(x, f_set1(inv[t])), -127.0f, 127.0f));
                }
            }
            if constexpr (F == KvFormat::Q4)
                i_store(reinterpret_cast<std::int32_t*>(out + at.v_codes + (c * 4 + t0 / 8 + u) * 64), word);
        }
}

template <KvFormat F>
static void kv_quantize(const KvQuantizeArgs& a) {
    const int n_d = static_cast<int>(a.to.head_dim);
    const KvQuantLayout at(F, a.to.head_dim);
    std::byte* out = a.to.base + a.to.pages[static_cast<std::uint32_t>(a.to_pos) / kKvGroup] * a.to.page_stride + a.to.k_offset;
    const std::byte* k[2];
    for (std::uint32_t j = 0; j < 2; ++j) {
        const std::uint32_t pos = static_cast<std::uint32_t>(a.from_pos) + 16 * j, slot = pos % a.from.page_tokens;
        const std::byte* page = a.from.base + a.from.pages[pos / a.from.page_tokens] * a.from.page_stride;
        k[j] = page + a.from.k_offset + std::size_t{slot} * a.from.head_dim * 2;
        kv_quantize_v<F>(page + a.from.v_offset + std::size_t{slot} * ((a.from.head_dim + 15) / 16 * 16) * 2, n_d,
                         static_cast<int>(16 * j), at, out);
    }
    kv_quantize_k<F>(k, n_d, at, out);
}

static void kv_quantize_q8(const KvQuantizeArgs& a) { kv_quantize<KvFormat::Q8>(a); }
static void kv_quantize_q4(const KvQuantizeArgs& a) { kv_quantize<KvFormat::Q4>(a); }

}  // namespace quern::kernels::QUERN_ISA_NS
