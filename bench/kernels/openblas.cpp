// SPDX-License-Identifier: Apache-2.0
#include <cblas.h>

#include <cstdio>

#include "bench/kernels/yardstick.h"

namespace quern::bench {
namespace {

void multiply(const float* w, const float* x, float* y, Shape s, std::uint32_t n_cols, unsigned threads) {
    const int rows = static_cast<int>(s.rows), k = static_cast<int>(s.k), cols = static_cast<int>(n_cols);
    if (openblas_get_num_threads() != static_cast<int>(threads)) openblas_set_num_threads(static_cast<int>(threads));
    if (n_cols == 1) {
        cblas_sgemv(CblasRowMajor, CblasNoTrans, rows, k, 1.0f, w, k, x, 1, 0.0f, y, 1);
    } else {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, cols, rows, k, 1.0f, x, k, w, k, 0.0f, y, rows);
    }
}

}  // namespace

void register_openblas(Context& context) {
    const std::string core = openblas_get_corename();  // the kernels that it chose
    benchmark::AddCustomContext("openblas", core);
    if (core == "Prescott" && kernels::cpu_features() & kernels::kAvx2)
        std::fprintf(stderr, "kernels_bench: OpenBLAS does not know this CPU and takes its SSE3 kernels; "
                             "OPENBLAS_CORETYPE=SKYLAKEX or HASWELL in the environment gives it better ones\n");
    for (const Shape& shape : kShapes)
        for (const std::uint32_t n_cols : kColumns)
            for (const unsigned threads : context.threads)
                add_yardstick(context, "openblas", shape, n_cols, threads, multiply);
}

}  // namespace quern::bench
