// SPDX-License-Identifier: Apache-2.0
#include "engine/kv/move.h"

#include <cstring>

namespace quern::engine {

void copy_position(const PagePool& pool, const std::uint32_t* pages, std::uint32_t from, std::uint32_t to) {
    const KvShape& shape = pool.shape();
    const std::size_t size = shape.element_bytes(), v_bytes = shape.v_pitch() * size;
    constexpr std::size_t lanes = kernels::kLanes;   // K: [page_tokens / 16][head_dim][16 tokens], V: [page_tokens][v_pitch]
    for (std::uint32_t layer = 0; layer < shape.n_head_kv.size(); ++layer)
        for (std::uint32_t head = 0; head < shape.n_head_kv[layer]; ++head) {
            const kernels::KvHeadView v = pool.view(layer, head, pages);
            const auto page = [&](std::uint32_t pos) { return v.base + v.pages[pos / v.page_tokens] * v.page_stride; };
            const std::uint32_t a = from % v.page_tokens, b = to % v.page_tokens;
            const auto k = [&](std::uint32_t slot) { return v.k_offset + (slot / lanes * v.head_dim * lanes + slot % lanes) * size; };
            for (std::size_t d = 0; d < v.head_dim; ++d) std::memcpy(page(to) + k(b) + d * lanes * size, page(from) + k(a) + d * lanes * size, size);
            std::memcpy(page(to) + v.v_offset + b * v_bytes, page(from) + v.v_offset + a * v_bytes, v_bytes);
        }
}

}  // namespace quern::engine
