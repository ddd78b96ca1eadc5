// SPDX-License-Identifier: Apache-2.0
// Rotary positions (Su et al., arXiv 2104.09864): each pair (a, b) becomes (a cos - b sin, a sin + b cos), three
// roundings an element. Plain loops: products and sums are exact IEEE operations, so vectorizing them changes no bit.
#pragma once

namespace quern::kernels::QUERN_ISA_NS {

static void rope_norm(float* x, std::uint32_t n_heads, std::uint32_t head_dim, std::uint32_t n_rot, const float* cs) {
    for (std::uint32_t h = 0; h < n_heads; ++h, x += head_dim) {
        float* __restrict p = x;
        const float* __restrict c = cs;
        for (std::uint32_t i = 0; i + 1 < n_rot; i += 2) {
            const float a = p[i], b = p[i + 1];
            p[i] = a * c[i] - b * c[i + 1];
            p[i + 1] = a * c[i + 1] + b * c[i];
        }
    }
}

static void rope_neox(float* x, std::uint32_t n_heads, std::uint32_t head_dim, std::uint32_t n_rot, const float* cs) {
    const std::uint32_t half = n_rot / 2;
    for (std::uint32_t h = 0; h < n_heads; ++h, x += head_dim) {
        float* __restrict lo = x;
        float* __restrict hi = x + half;
        const float* __restrict c = cs;
        for (std::uint32_t i = 0; i < half; ++i) {
            const float a = lo[i], b = hi[i];
            lo[i] = a * c[2 * i] - b * c[2 * i + 1];
            hi[i] = a * c[2 * i + 1] + b * c[2 * i];
        }
    }
}

}  // namespace quern::kernels::QUERN_ISA_NS
