// SPDX-License-Identifier: Apache-2.0
// Writes new positions into KV pages (layout in kernels/views.h). K is transposed, so that 16 tokens of one dimension
// make a vector; V keeps rows, padded with zeros to a multiple of 16.
#pragma once

#include "kernels/views.h"

namespace quern::kernels::QUERN_ISA_NS {

template <KvFormat F>
static constexpr std::size_t kv_bytes() {
    return F == KvFormat::F16 ? 2 : 4;
}

template <KvFormat F>
QUERN_INLINE void kv_put(std::byte* p, F32x16 v) {
    if constexpr (F == KvFormat::F16)
        f_store_f16(p, v);
    else
        f_store(reinterpret_cast<float*>(p), v);
}

template <KvFormat F>
static void kv_store(const KvStoreArgs& a) {
    constexpr std::size_t kBytes = kv_bytes<F>();
    const std::uint32_t hd = a.kv.head_dim;
    const std::size_t v_pitch = (hd + 15) / 16 * 16;
    alignas(64) std::byte lanes[16 * kBytes];
    for (std::uint32_t i = 0; i < a.n_tokens; ++i) {
        const std::uint32_t pos = static_cast<std::uint32_t>(a.pos0) + i, slot = pos % a.kv.page_tokens;
        std::byte* page = a.kv.base + a.kv.pages[pos / a.kv.page_tokens] * a.kv.page_stride;
        std::byte* k = page + a.kv.k_offset + (std::size_t{slot / 16} * hd * 16 + slot % 16) * kBytes;
        std::byte* v = page + a.kv.v_offset + slot * v_pitch * kBytes;
        for (std::uint32_t d = 0; d < hd; d += 16) {
            const int n = hd - d < 16 ? static_cast<int>(hd - d) : 16;
            kv_put<F>(lanes, f_load_n(a.k + i * a.k_stride + d, n));
            for (int j = 0; j < n; ++j) __builtin_memcpy(k + (d + j) * 16 * kBytes, lanes + j * kBytes, kBytes);
            kv_put<F>(v + d * kBytes, f_load_n(a.v + i * a.v_stride + d, n));
        }
    }
}

static void kv_store_f32(const KvStoreArgs& a) { kv_store<KvFormat::F32>(a); }
static void kv_store_f16(const KvStoreArgs& a) { kv_store<KvFormat::F16>(a); }

}  // namespace quern::kernels::QUERN_ISA_NS
