// SPDX-License-Identifier: Apache-2.0
// Weights and activations that the tests of matrix products are given, on the CPU and on devices.
#pragma once

#include "formats/dtype.h"
#include "tests/kernels/ops_support.h"

namespace quern::kernels::test {

enum class Fill { normal, ramp, zero, one_hot, saturating, cancelling, subnormal, raw };
inline constexpr Fill kFills[] = {Fill::normal,     Fill::ramp,       Fill::zero,      Fill::one_hot,
                                  Fill::saturating, Fill::cancelling, Fill::subnormal, Fill::raw};

inline bool is_quant(const QuantInfo& q) { return q.block_elements > 1; }

inline std::vector<float> values(Fill fill, std::size_t n, std::mt19937& rng) {
    std::vector<float> v = random_floats(n, 1.0f, rng);
    for (std::size_t i = 0; i < n; ++i) {
        switch (fill) {
            case Fill::ramp: v[i] = static_cast<float>(i % 97) - 48.0f; break;
            case Fill::zero: v[i] = i / 32 % 2 ? v[i] : 0.0f; break;
            case Fill::one_hot: v[i] = i % 37 == 5 ? 3.0f : 0.0f; break;
            case Fill::saturating: v[i] = i % 3 ? 1.0f : -1.0f; break;  // every code at an end of its range
            case Fill::cancelling: v[i] = i % 2 ? -v[i - 1] : v[i]; break;
            case Fill::subnormal: v[i] *= 0x1p-20f; break;  // F16 scales below 2^-14
            default: break;
        }
    }
    return v;
}

/// Byte offsets of the F16 scales in a block, which raw random bytes must not make infinite or NaN.
inline std::vector<std::size_t> half_offsets(DType t) {
    switch (t) {
        case DType::F16: return {0};
        case DType::Q4_0: case DType::Q5_0: case DType::Q8_0: return {0};
        case DType::Q4_1: case DType::Q5_1: case DType::Q4_K: case DType::Q5_K: return {0, 2};
        case DType::Q2_K: return {80, 82};
        case DType::Q3_K: return {108};
        case DType::Q6_K: return {208};
        default: return {};
    }
}

inline void set_scales_to_one(const QuantInfo& q, std::byte* block) {
    if (q.type == DType::MXFP4) *block = std::byte{128};
    for (const std::size_t h : half_offsets(q.type)) {
        block[h] = std::byte{0};
        block[h + 1] = std::byte{0x3c};
    }
}
/// Infinite or NaN, by the bits already there. MXFP4 has neither; its largest scale makes infinite products.
inline void set_scale_not_finite(const QuantInfo& q, std::byte* block) {
    if (q.type == DType::MXFP4) *block = std::byte{255};
    else block[half_offsets(q.type).back() + 1] |= std::byte{0x7c};
}

inline std::vector<std::byte> weight_rows(const QuantInfo& q, Fill fill, std::uint32_t n_rows, std::uint32_t n_k,
                                          std::mt19937& rng) {
    const std::size_t n = std::size_t{n_rows} * n_k;
    std::vector<std::byte> rows(n_rows * row_bytes(q.type, n_k).value());
    if (fill != Fill::raw || q.type == DType::F32 || q.type == DType::BF16) {
        q.encode(values(fill, n, rng).data(), rows.data(), n);
        return rows;
    }
    for (std::byte& b : rows) b = static_cast<std::byte>(rng());
    for (std::size_t at = 0; at < rows.size(); at += q.block_bytes)  // one exponent bit off: below 31, so finite
        for (const std::size_t h : half_offsets(q.type)) rows[at + h + 1] &= static_cast<std::byte>(0xbb);
    if (q.type == DType::MXFP4)  // 2^-64 to 2^63: sums of products stay finite
        for (std::size_t at = 0; at < rows.size(); at += q.block_bytes)
            rows[at] = static_cast<std::byte>(64 + static_cast<int>(rows[at]) / 2);
    return rows;
}

}  // namespace quern::kernels::test
