// SPDX-License-Identifier: Apache-2.0
// Standard headers come first: what follows the pragma is compiled for AVX2, and of those only Eigen's own templates,
// which no other unit has, may be.
#include <algorithm>
#include <array>
#include <cmath>
#include <complex>
#include <functional>
#include <limits>
#include <sstream>
#include <vector>

#include "bench/kernels/yardstick.h"

// g++ 12 does not set the macros that Eigen asks for by its pragma, clang by no attribute.
#if defined(__x86_64__) && !defined(__AVX__)
#define QUERN_EIGEN_AVX2 1
#include <immintrin.h>
#define __AVX__ 1
#define __AVX2__ 1
#define __FMA__ 1
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#endif

#include <Eigen/Core>

namespace quern::bench {
namespace {

void multiply(const float* w, const float* x, float* y, Shape s, std::uint32_t n_cols, unsigned) {
    using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const Eigen::Map<const RowMajor> weights(w, s.rows, s.k);
    if (n_cols == 1) {
        Eigen::Map<Eigen::VectorXf>(y, s.rows).noalias() = weights * Eigen::Map<const Eigen::VectorXf>(x, s.k);
    } else {
        const Eigen::Map<const Eigen::MatrixXf> columns(x, s.k, n_cols);
        Eigen::Map<Eigen::MatrixXf>(y, s.rows, n_cols).noalias() = weights * columns;
    }
}

}  // namespace
#ifdef QUERN_EIGEN_AVX2
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
constexpr const char* kName = "eigen_avx2";
constexpr std::uint32_t kNeeds = kernels::kAvx2 | kernels::kFma;
#else
constexpr const char* kName = "eigen";
constexpr std::uint32_t kNeeds = 0;
#endif

/// One thread: this build of Eigen has no OpenMP.
void register_eigen(Context& context) {
    if (kNeeds & ~kernels::cpu_features()) return;
    for (const Shape& shape : kShapes)
        for (const std::uint32_t n_cols : kColumns) add_yardstick(context, kName, shape, n_cols, 1, multiply);
}

}  // namespace quern::bench
