// SPDX-License-Identifier: Apache-2.0
// Which kernel multiplies by a matrix, with which constants, over how many groups.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "formats/dtype.h"
#include "kernels/vulkan/args_matmul.h"
#include "kernels/vulkan/device.h"

namespace quern::vulkan {

enum class Glu : std::uint8_t { none, swiglu, geglu };

enum class MatmulKind : std::uint8_t {
    matvec,      // few columns, float activations
    matvec_dot,  // few columns, rounded activations (quantize_act), quantized weights
    matmul,      // many columns
    matmul_dot,
    matmul_coop,  // many columns, float activations, which it rounds to F16: they must lie within +-65504
};

inline constexpr MatmulKind kMatmulKinds[] = {MatmulKind::matvec, MatmulKind::matvec_dot, MatmulKind::matmul, MatmulKind::matmul_dot, MatmulKind::matmul_coop};
/// "matvec", ...: what its modules' names begin with.
const char* kernel_name(MatmulKind kind);

struct KernelPlan {
    std::string module;
    std::vector<std::uint32_t> constants;
    std::uint32_t required_subgroup = 0;
    std::uint32_t groups_x = 1;
    std::uint32_t cols_per_group = 1;  // columns that one group along y takes

    Groups groups(std::uint32_t n_cols) const { return {groups_x, (n_cols + cols_per_group - 1) / cols_per_group, 1}; }
};

/// Most columns that the matvec kernels take in one group; more are taken by more groups, each reading the weights
/// again.
inline constexpr std::uint32_t kMatvecCols = 16;

/// The kind that suits up to max_cols columns on a device with these features. `rounded`: the activations may be
/// rounded to int8, which is used where the device is fast at it and the weights are quantized.
MatmulKind choose_matmul(DType t, std::uint32_t max_cols, std::uint32_t features, bool rounded);

constexpr bool is_matvec(MatmulKind k) { return k == MatmulKind::matvec || k == MatmulKind::matvec_dot; }
constexpr bool takes_rounded(MatmulKind k) { return k == MatmulKind::matvec_dot || k == MatmulKind::matmul_dot; }

/// Kernel of a matrix (or part of one) of n_rows x n_k for up to max_cols columns at a time. Push: MatmulPush. n_k is a
/// multiple of the type's block. glu: matvec kinds alone.
KernelPlan plan_matmul(MatmulKind kind, DType t, std::uint32_t n_rows, std::uint32_t n_k, std::uint32_t max_cols,
                       Glu glu, const DeviceInfo& device);

/// Push: EmbedPush. A group along y takes one token.
KernelPlan plan_embed(DType t, std::uint32_t n_k);

/// Push: QuantizePush. A group along y takes one column of n values.
KernelPlan plan_quantize(std::uint32_t n);

}  // namespace quern::vulkan
