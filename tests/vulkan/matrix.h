// SPDX-License-Identifier: Apache-2.0
// A packed matrix on the device, its products, and what they have to be near.
#pragma once

#include <cmath>
#include <limits>

#include "formats/dtype.h"
#include "kernels/vulkan/args.h"
#include "kernels/vulkan/matmul.h"
#include "tests/kernels/fills.h"
#include "tests/vulkan/support.h"

namespace quern::vulkan::test {

using kernels::ActLayout;
using kernels::kLanes;
using kernels::test::Fill;
using kernels::test::is_quant;
using kernels::test::kFills;

inline constexpr float kCanary = 12345.5f;

struct Matrix {
    const QuantInfo& q;
    std::uint32_t n_rows, n_k;
    std::vector<float> weights;  // [n_rows][n_k], decoded
    std::vector<std::byte> panels;
    std::size_t panel_stride;  // bytes

    Matrix(const QuantInfo& type, const std::vector<std::byte>& rows, std::uint32_t rows_n, std::uint32_t k)
        : q(type),
          n_rows(rows_n),
          n_k(k),
          weights(std::size_t{rows_n} * k),
          panel_stride(kernels::panel_bytes(type.type, k)) {
        const std::size_t row = row_bytes(q.type, n_k).value();
        q.decode(rows.data(), weights.data(), weights.size());
        panels.resize((n_rows + kLanes - 1) / kLanes * panel_stride);
        for (std::uint32_t r = 0; r < n_rows; r += kLanes)
            kernels::pack_panel(q.type, rows.data() + r * row, row, std::min(kLanes, n_rows - r), n_k,
                                panels.data() + r / kLanes * panel_stride);
    }
    Matrix(const QuantInfo& type, Fill fill, std::uint32_t rows_n, std::uint32_t k, std::mt19937& rng)
        : Matrix(type, kernels::test::weight_rows(type, fill, rows_n, k, rng), rows_n, k) {}
};

/// Columns as a kernel takes them: floats with NaN behind each row, or rounded by the scalar table. Column n_cols is
/// NaN.
struct Columns {
    std::uint32_t n_k, n_cols;
    bool rounded;
    std::size_t stride;  // bytes
    std::vector<std::byte> bytes;

    Columns(const std::vector<float>& x, std::uint32_t k, std::uint32_t n, bool rounded_)
        : n_k(k),
          n_cols(n),
          rounded(rounded_),
          stride(rounded_ ? ActLayout(k).bytes : (k + 3) / 4 * 16),
          bytes((n + 1) * stride) {
        const float nan = std::numeric_limits<float>::quiet_NaN();
        for (std::size_t at = 0; at < bytes.size(); at += 4) std::memcpy(bytes.data() + at, &nan, 4);
        for (std::uint32_t c = 0; c < n; ++c) {
            if (rounded)
                kernels::test::scalar_table().quantize_act(x.data() + std::size_t{c} * k, 0, k, k, column(c));
            else
                std::memcpy(column(c), x.data() + std::size_t{c} * k, k * sizeof(float));
        }
    }
    std::byte* column(std::uint32_t c) { return bytes.data() + c * stride; }
    /// Activation k of column c as the kernel sees it.
    double operator()(std::uint32_t c, std::uint32_t k) const {
        const std::byte* p = bytes.data() + c * stride;
        float v;
        std::memcpy(&v, rounded ? p + ActLayout(n_k).d + k / 32 * 4 : p + k * sizeof(float), 4);
        return rounded ? static_cast<double>(static_cast<std::int8_t>(p[k])) * v : v;
    }
};

struct ProductOptions {
    const float* bias = nullptr;  // [n_rows]
    std::vector<float> old;       // [n_cols][n_rows]: added to
    const Matrix* up = nullptr;
    Glu glu = Glu::none;
    std::uint32_t cols_from = QUERN_COLS_PUSHED;
    std::uint32_t dispatched = 0;                 // columns for which groups are made, if more than there are
    std::uint32_t max_cols = 0;                   // that the plan is made for, if more
    std::uint32_t first_panel = 0, n_panels = 0;  // a part of the matrix; 0: all
};

class MatrixTest : public DeviceTest {
protected:
    std::mt19937 rng{kernels::test::seed()};

    Buffer upload_bytes(const std::vector<std::byte>& bytes) { return upload(bytes); }

    /// y as [n_cols][n_rows]. Whatever else lies around y must stay as it was.
    std::vector<float> multiply(MatmulKind kind, const Matrix& m, const Columns& x, const ProductOptions& o = {}) {
        const std::uint32_t first = o.first_panel * kLanes;
        const std::uint32_t n_rows = o.n_panels ? std::min(o.n_panels * kLanes, m.n_rows - first) : m.n_rows;
        const std::uint32_t dispatched = std::max(o.dispatched, x.n_cols);
        const std::size_t stride = (m.n_rows + 3 + 3) / 4 * 4;
        std::vector<float> y((dispatched + 1) * stride, kCanary);
        for (std::uint32_t c = 0; c < x.n_cols && !o.old.empty(); ++c)
            for (std::uint32_t r = 0; r < m.n_rows; ++r) y[c * stride + r] = o.old[c * m.n_rows + r];
        const std::vector<float> before = y;
        const Buffer w = upload(m.panels), xs = upload(x.bytes), out = upload(y);
        Buffer up, bias;
        if (o.up) up = upload(o.up->panels);
        if (o.bias) bias = upload(std::vector<float>(o.bias, o.bias + m.n_rows));
        RunHeader header{};
        header.n_tokens = o.cols_from == QUERN_COLS_TOKENS ? x.n_cols : 99;
        header.n_outputs = o.cols_from == QUERN_COLS_OUTPUTS ? x.n_cols : 99;
        const Buffer run_block = upload(std::vector<RunHeader>{header});

        MatmulPush push{};
        push.w = w.address() + o.first_panel * m.panel_stride;
        push.w_up = o.up ? up.address() : 0;
        push.x = xs.address();
        push.y = out.address() + first * sizeof(float);
        push.bias = o.bias ? bias.address() + first * sizeof(float) : 0;
        push.run = run_block.address();
        push.panel_stride = static_cast<std::uint32_t>(m.panel_stride / 16);
        push.n_rows = n_rows;
        push.n_k = m.n_k;
        push.x_stride = static_cast<std::uint32_t>(x.stride / 16);
        push.y_stride = static_cast<std::uint32_t>(stride);
        push.n_cols = o.cols_from == QUERN_COLS_PUSHED ? x.n_cols : 99;
        push.cols_from = o.cols_from;
        push.add = o.old.empty() ? 0 : 1;
        const KernelPlan plan =
            plan_matmul(kind, m.q.type, n_rows, m.n_k, std::max(o.max_cols, x.n_cols), o.glu, device().info());
        dispatch(kernel(plan.module, plan.constants, plan.required_subgroup), push, plan.groups(dispatched));

        y = download<float>(out, y.size());
        std::vector<float> got;
        for (std::size_t i = 0; i < y.size(); ++i) {
            const std::size_t c = i / stride, r = i % stride;
            if (c < x.n_cols && r >= first && r < first + n_rows) {
                got.push_back(y[i]);
            } else if (std::memcmp(&y[i], &before[i], 4) != 0) {
                ADD_FAILURE() << "wrote outside: row " << r << " column " << c << ": " << y[i];
                break;
            }
        }
        return got;
    }

    std::vector<float> floats(Fill fill, std::size_t n) {
        return kernels::test::values(fill == Fill::raw ? Fill::normal : fill, n, rng);
    }

    static double roundings(MatmulKind kind, const Matrix& m) {
        // matvec: a thread of four sums two blocks' quarters at most each by four multiply-adds, the halves' sum, scale
        // and minimum, eight roundings; then four quarters and up to 16 splits, bias and old value. matmul: one chain
        // over k (with codes: scales, minima, two halves), and three in the making of a weight.
        const double reduce = 24;
        switch (kind) {
            case MatmulKind::matvec:
            case MatmulKind::matvec_dot:
                return m.n_k / 4.0 + 8 + reduce;
            case MatmulKind::matmul:
                return m.n_k + 3 + 2;
            case MatmulKind::matmul_dot:
                return m.n_k / 4.0 + 4;
            // Both factors rounded to 11 bits; matrix units may add with less than F32's care: twice a chain.
            case MatmulKind::matmul_coop:
                return 2 * 0x1p13 + 2.0 * m.n_k;
        }
        return 0;
    }

    /// Each element within (roundings) * 2^-24 of the sum of magnitudes of its terms.
    static void expect_near(MatmulKind kind, const Matrix& m, const Columns& x, const std::vector<float>& y) {
        ASSERT_EQ(y.size(), std::size_t{m.n_rows} * x.n_cols);
        for (std::uint32_t c = 0; c < x.n_cols; ++c) {
            for (std::uint32_t r = 0; r < m.n_rows; ++r) {
                double want = 0, size = 0, subnormal = 1e-37;
                for (std::uint32_t k = 0; k < m.n_k; ++k) {
                    const double w = m.weights[std::size_t{r} * m.n_k + k], term = w * x(c, k);
                    want += term;
                    size += std::fabs(term);
                    // F16 has steps of 2^-24 at its small end.
                    if (kind == MatmulKind::matmul_coop)
                        subnormal += 0x1p-25 * (std::fabs(w) + std::fabs(x(c, k)) + 0x1p-25);
                }
                ASSERT_NEAR(y[std::size_t{c} * m.n_rows + r], want, roundings(kind, m) * 0x1p-24 * size + subnormal)
                    << "row " << r << " column " << c;
            }
        }
    }
    static std::string label(const QuantInfo& q, std::uint32_t rows, std::uint32_t k, std::uint32_t cols, int kind) {
        return std::string(q.name) + " rows " + std::to_string(rows) + " k " + std::to_string(k) + " columns " +
               std::to_string(cols) + " kind " + std::to_string(kind);
    }
};

}  // namespace quern::vulkan::test
