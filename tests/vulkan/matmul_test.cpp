// SPDX-License-Identifier: Apache-2.0
// Matrix products on a device: every type by every kernel, against double arithmetic over the decoded weights and the
// same activations, rounded where the kernel takes rounded ones.
#include <algorithm>
#include <cctype>

#include "tests/vulkan/matrix.h"

namespace quern::vulkan::test {
namespace {

class VulkanMatmul : public MatrixTest, public testing::WithParamInterface<MatmulKind> {
protected:
    void SetUp() override {
        MatrixTest::SetUp();
        if (IsSkipped()) return;
        if (takes_rounded(kind()) && !device().has(kIntegerDot))
            GTEST_SKIP() << device().info().name << " has no packed integer dot product";
        if (kind() != MatmulKind::matmul_coop) return;
        if (!device().has(kCoopmat) || !device().has(kFloat16) || !device().has(kSubgroupSize))
            GTEST_SKIP() << device().info().name << " has no cooperative matrices (16 x 16 x 16, F16 to F32)";
        for (const std::string_view missing : missing_modules())
            if (missing.starts_with("matmul_coop")) GTEST_SKIP() << missing;
    }
    static MatmulKind kind() { return GetParam(); }
    static bool takes(const QuantInfo& q) { return is_quant(q) || !takes_rounded(kind()); }
    /// Raw MXFP4 has scales up to 2^63, beyond F16.
    static bool takes(const QuantInfo& q, Fill fill) {
        return takes(q) && !(kind() == MatmulKind::matmul_coop && q.type == DType::MXFP4 && fill == Fill::raw);
    }
    Columns columns(Fill fill, std::uint32_t k, std::uint32_t n) {
        return Columns(floats(fill, std::size_t{k} * n), k, n, takes_rounded(kind()));
    }
    static std::uint32_t depth(const QuantInfo& q) {
        return q.block_elements == 1 ? 300 : q.block_elements == 32 ? 288 : 512;
    }
    static constexpr std::uint32_t kFewCols = 3, kManyCols = 17;
    static std::uint32_t cols() { return is_matvec(kind()) ? kFewCols : kManyCols; }
};

TEST_P(VulkanMatmul, IsRightForEveryFill) {
    for (const QuantInfo& q : all_types()) {
        for (const Fill fill : kFills) {
            if (!takes(q, fill)) continue;
            const std::uint32_t k = depth(q);
            SCOPED_TRACE(label(q, 33, k, cols(), static_cast<int>(fill)));
            const Matrix m(q, fill, 33, k, rng);
            const Columns x = columns(fill, k, cols());
            expect_near(kind(), m, x, multiply(kind(), m, x));
            if (HasFailure()) return;
        }
    }
}

/// Remainders of rows, columns and depth; each type meets every number of columns, and most rows and depths.
TEST_P(VulkanMatmul, IsRightForEveryRemainder) {
    const std::vector<std::uint32_t> columns_ =
        is_matvec(kind()) ? std::vector<std::uint32_t>{1, 2, 3, 5, 8, 16, 19} : std::vector<std::uint32_t>{17, 64, 100};
    const std::uint32_t rows_[] = {1, 15, 16, 17, 33, 70, 129};
    std::size_t turn = 0;
    for (const QuantInfo& q : all_types()) {
        if (!takes(q)) continue;
        const std::vector<std::uint32_t> depths = q.block_elements == 1 ? std::vector<std::uint32_t>{1, 31, 32, 130}
                                                  : q.block_elements == 32
                                                      ? std::vector<std::uint32_t>{32, 96, 160, 416}
                                                      : std::vector<std::uint32_t>{256, 768};
        for (const std::uint32_t n_cols : columns_) {
            // Pipelines for many columns take lavapipe long: those of a type share a depth.
            const std::uint32_t rows = rows_[turn % std::size(rows_)],
                                k = n_cols <= 3 ? depths[turn % depths.size()] : depth(q);
            ++turn;
            SCOPED_TRACE(label(q, rows, k, n_cols, static_cast<int>(kind())));
            const Matrix m(q, turn % 3 == 0 && takes(q, Fill::raw) ? Fill::raw : Fill::normal, rows, k, rng);
            const Columns x = columns(Fill::normal, k, n_cols);
            expect_near(kind(), m, x, multiply(kind(), m, x));
            if (HasFailure()) return;
        }
    }
}

TEST_P(VulkanMatmul, BiasThenOldValueAreAdded) {
    for (const QuantInfo& q : all_types()) {
        if (!takes(q)) continue;
        const std::uint32_t rows = 33, k = depth(q), n = cols();
        SCOPED_TRACE(q.name);
        const Matrix m(q, Fill::normal, rows, k, rng);
        const Columns x = columns(Fill::normal, k, n);
        const std::vector<float> plain = multiply(kind(), m, x), bias = floats(Fill::normal, rows),
                                 old = floats(Fill::normal, std::size_t{rows} * n);
        for (const int which : {1, 2, 3}) {
            ProductOptions o;
            if (which & 1) o.bias = bias.data();
            if (which & 2) o.old = old;
            const std::vector<float> y = multiply(kind(), m, x, o);
            ASSERT_EQ(y.size(), plain.size());
            for (std::size_t i = 0; i < y.size(); ++i) {
                float want = plain[i];
                if (which & 1) want = want + bias[i % rows];
                if (which & 2) want = want + old[i];
                ASSERT_EQ(y[i], want) << "element " << i << " variant " << which;
            }
        }
    }
}

/// The run block says how many columns there are; groups for more write nothing, and a result has the same bits
/// whatever stands beside it.
TEST_P(VulkanMatmul, TakesAsManyColumnsAsTheRunHas) {
    for (const DType t : {DType::Q4_0, DType::Q6_K, DType::F16}) {
        const QuantInfo& q = info(t);
        if (!takes(q)) continue;
        const std::uint32_t rows = 40, k = 512, n = is_matvec(kind()) ? 7 : 70, most = is_matvec(kind()) ? 8 : 200;
        SCOPED_TRACE(q.name);
        const Matrix m(q, Fill::normal, rows, k, rng);
        const std::vector<float> x = floats(Fill::normal, std::size_t{k} * n);
        std::vector<float> all;
        for (const std::uint32_t from : {QUERN_COLS_TOKENS, QUERN_COLS_OUTPUTS, QUERN_COLS_PUSHED}) {
            ProductOptions o;
            o.cols_from = from;
            o.dispatched = o.max_cols = most;
            const Columns xs(x, k, n, takes_rounded(kind()));
            all = multiply(kind(), m, xs, o);
            expect_near(kind(), m, xs, all);
        }
        for (const std::uint32_t some : {1u, 2u, 5u}) {
            ProductOptions o;
            o.max_cols = most;
            const Columns xs(std::vector<float>(x.begin() + k, x.begin() + k * (1 + some)), k, some,
                             takes_rounded(kind()));
            const std::vector<float> y = multiply(kind(), m, xs, o);
            ASSERT_EQ(y.size(), rows * some);
            EXPECT_EQ(std::memcmp(y.data(), all.data() + rows, y.size() * sizeof(float)), 0)
                << some << " columns alone";
        }
    }
}

TEST_P(VulkanMatmul, PartsOfAMatrixMakeTheWhole) {
    const QuantInfo& q = info(DType::Q5_K);
    const std::uint32_t rows = 87, k = 256;
    const Matrix m(q, Fill::normal, rows, k, rng);
    const Columns x = columns(Fill::normal, k, cols());
    const std::vector<float> bias = floats(Fill::normal, rows), old(std::size_t{rows} * cols(), 0.5f);
    ProductOptions o;
    o.bias = bias.data();
    o.old = old;
    const std::vector<float> whole = multiply(kind(), m, x, o);
    for (const std::uint32_t first : {0u, 2u, 5u}) {
        o.first_panel = first;
        o.n_panels = first == 0 ? 2 : 3;
        const std::vector<float> part = multiply(kind(), m, x, o);
        const std::size_t n = std::min(o.n_panels * kLanes, rows - first * kLanes);
        ASSERT_EQ(part.size(), n * x.n_cols);
        for (std::size_t i = 0; i < part.size(); ++i)
            ASSERT_EQ(part[i], whole[i / n * rows + first * kLanes + i % n]) << "panel " << first << " element " << i;
    }
}

/// With scales of one nothing rounds in the integer kernels, nor do sums of small whole numbers in the others.
TEST_P(VulkanMatmul, WholeNumbersAreExact) {
    for (const QuantInfo& q : all_types()) {
        if (!takes(q)) continue;
        const std::uint32_t k = is_quant(q) ? q.block_elements : 64, rows = 35, n = is_matvec(kind()) ? 1 : 21;
        SCOPED_TRACE(q.name);
        std::vector<std::byte> w = kernels::test::weight_rows(q, Fill::raw, rows, k, rng);
        for (std::size_t at = 0; is_quant(q) && at < w.size(); at += q.block_bytes)
            kernels::test::set_scales_to_one(q, w.data() + at);
        if (!is_quant(q)) {
            std::vector<float> small(std::size_t{rows} * k);
            for (float& v : small) v = static_cast<float>(static_cast<int>(rng() % 255) - 127);
            q.encode(small.data(), w.data(), small.size());
        }
        // 127 in each block keeps d at 1; few other values keep every sum below 2^24, where floats are exact.
        std::vector<float> x(std::size_t{k} * n);
        for (std::size_t i = 0; i < x.size(); ++i)
            x[i] = i % 32 == 7 ? 127.0f : i % 3 == 0 ? static_cast<float>(static_cast<int>(rng() % 5) - 2) : 0.0f;
        const Matrix m(q, w, rows, k);
        if (kind() == MatmulKind::matmul_coop &&  // weights of K types may need more than 11 bits
            std::any_of(m.weights.begin(), m.weights.end(), [](float v) { return std::fabs(v) > 2048; }))
            continue;
        const Columns xs(x, k, n, takes_rounded(kind()));
        const std::vector<float> y = multiply(kind(), m, xs);
        ASSERT_EQ(y.size(), std::size_t{rows} * n);
        for (std::uint32_t c = 0; c < n; ++c)
            for (std::uint32_t r = 0; r < rows; ++r) {
                double want = 0;
                for (std::uint32_t i = 0; i < k; ++i) want += double{m.weights[std::size_t{r} * k + i]} * xs(c, i);
                ASSERT_EQ(y[std::size_t{c} * rows + r], want) << "row " << r << " column " << c;
            }
    }
}

/// A test that cannot fail would pass here too: the check against doubles sees one changed bit of a code.
TEST_P(VulkanMatmul, OneChangedWeightBitFailsTheCheck) {
    for (const QuantInfo& q : all_types()) {
        if (!takes(q)) continue;
        // Rounding to F16 hides a step of a code where there are many of them, or many values.
        if (kind() == MatmulKind::matmul_coop && q.type != DType::Q4_0 && q.type != DType::Q4_1) continue;
        const std::uint32_t k = q.block_elements == 256 ? 256 : 32, rows = 16, n = is_matvec(kind()) ? 1 : 17;
        SCOPED_TRACE(q.name);
        const Matrix m(q, Fill::normal, rows, k, rng);
        std::vector<float> v = floats(Fill::normal, std::size_t{k} * n);
        for (float& f : v) f += std::copysign(1.0f, f);  // none rounds to zero
        const Columns x(v, k, n, takes_rounded(kind()));
        const std::vector<float> y = multiply(kind(), m, x);
        expect_near(kind(), m, x, y);
        // The panel's last bytes but its pad are codes of the last block, of floats bits of a mantissa.
        std::size_t at = m.panel_stride - 64;
        if (is_float(q.type)) at += 1;
        Matrix changed = m;
        changed.panels[at + 8] ^= std::byte{static_cast<unsigned char>(q.type == DType::F32 ? 0x40 : 1)};
        const std::vector<float> z = multiply(kind(), changed, x);
        std::size_t n_changed = 0;
        double least = 1e30;
        for (std::size_t i = 0; i < y.size(); ++i) {
            if (y[i] == z[i]) continue;
            ++n_changed;
            double size = 0;
            for (std::uint32_t j = 0; j < k; ++j)
                size += std::fabs(m.weights[i % rows * k + j] * x(static_cast<std::uint32_t>(i / rows), j));
            least = std::min(least, std::fabs(double{z[i]} - y[i]) / (2 * roundings(kind(), m) * 0x1p-24 * size));
        }
        EXPECT_EQ(n_changed, n) << "one row changes, in every column";
        EXPECT_GT(least, 1) << "a change within the tolerance";
    }
}

std::string kernel_label(const testing::TestParamInfo<MatmulKind>& i) { return kernel_name(i.param); }
INSTANTIATE_TEST_SUITE_P(Kernels, VulkanMatmul, testing::ValuesIn(kMatmulKinds), kernel_label);

class VulkanGlu : public MatrixTest {};

TEST_F(VulkanGlu, IsTheGluOfTwoProducts) {
    for (const DType t : {DType::Q4_0, DType::Q4_K, DType::Q6_K, DType::F32, DType::F16}) {
        for (const MatmulKind kind : {MatmulKind::matvec, MatmulKind::matvec_dot}) {
            for (const Glu glu : {Glu::swiglu, Glu::geglu}) {
                const QuantInfo& q = info(t);
                if (takes_rounded(kind) && (!is_quant(q) || !device().has(kIntegerDot))) continue;
                const std::uint32_t rows = 50, k = 768, n = glu == Glu::swiglu ? 1 : 2;
                SCOPED_TRACE(label(q, rows, k, n, static_cast<int>(kind)));
                const Matrix gate(q, Fill::normal, rows, k, rng), up(q, Fill::normal, rows, k, rng);
                const Columns x(floats(Fill::normal, std::size_t{k} * n), k, n, takes_rounded(kind));
                ProductOptions o;
                o.max_cols = n;
                const std::vector<float> a = multiply(kind, gate, x, o), b = multiply(kind, up, x, o);
                o.up = &up;
                o.glu = glu;
                const std::vector<float> y = multiply(kind, gate, x, o);
                ASSERT_EQ(y.size(), a.size());
                for (std::size_t i = 0; i < y.size(); ++i) {
                    const double g = a[i], u = b[i];
                    const double f = glu == Glu::swiglu
                                         ? g / (1 + std::exp(-g))
                                         : g / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g)));
                    // exp of the Vulkan rules errs by 3 + 2 |g| ulp, the sums may be split otherwise than a and b's.
                    ASSERT_NEAR(y[i], f * u,
                                (16 + 4 * std::fabs(g) + gate.n_k / 4.0) * 0x1p-23 *
                                    (std::fabs(f * u) + std::fabs(g) + std::fabs(u)))
                        << "element " << i << " gate " << g << " up " << u;
                }
            }
        }
    }
}

/// What overflows in the exponential is no NaN.
TEST_F(VulkanGlu, LargeGatesStayFinite) {
    const std::uint32_t rows = 16, k = 32;
    std::vector<float> w(rows * k, 0.0f);
    for (std::uint32_t r = 0; r < rows; ++r) w[r * k] = (r % 2 ? -1.0f : 1.0f) * std::ldexp(1.0f, static_cast<int>(r));
    std::vector<std::byte> bytes(w.size() * 4);
    std::memcpy(bytes.data(), w.data(), bytes.size());
    const Matrix m(info(DType::F32), bytes, rows, k);
    std::vector<float> x(k, 0.0f);
    x[0] = 1.0f;
    for (const Glu glu : {Glu::swiglu, Glu::geglu}) {
        ProductOptions o;
        o.up = &m;
        o.glu = glu;
        const std::vector<float> y = multiply(MatmulKind::matvec, m, Columns(x, k, 1, false), o);
        ASSERT_EQ(y.size(), rows);
        for (std::uint32_t r = 8; r < rows; ++r) EXPECT_EQ(y[r], r % 2 ? 0.0f : w[r * k] * w[r * k]) << "row " << r;
    }
}

}  // namespace
}  // namespace quern::vulkan::test
