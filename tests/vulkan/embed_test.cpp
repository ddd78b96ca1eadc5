// SPDX-License-Identifier: Apache-2.0
// Rows of a packed matrix, and activations rounded to int8.
#include "tests/vulkan/matrix.h"

namespace quern::vulkan::test {
namespace {

class VulkanEmbed : public MatrixTest {
protected:
    /// Rows of these tokens, [tokens][stride] with canaries, from the part of m that begins at first_panel.
    std::vector<float> embed(const Matrix& m, const std::vector<std::uint32_t>& tokens, std::uint32_t first_panel,
                             std::uint32_t n_rows, std::uint32_t stride, std::uint32_t groups_y) {
        std::vector<std::uint32_t> block(sizeof(RunHeader) / 4);
        RunHeader header{};
        header.n_tokens = static_cast<std::uint32_t>(tokens.size());
        header.tokens = sizeof(RunHeader) / 4;
        std::memcpy(block.data(), &header, sizeof header);
        block.insert(block.end(), tokens.begin(), tokens.end());
        block.resize(block.size() + groups_y, 0);  // tokens that are none
        const Buffer w = upload(m.panels), run_block = upload(block);
        const Buffer y = upload(std::vector<float>(std::size_t{groups_y} * stride, kCanary));
        EmbedPush push{};
        push.w = w.address() + first_panel * m.panel_stride;
        push.y = y.address();
        push.run = run_block.address();
        push.panel_stride = static_cast<std::uint32_t>(m.panel_stride / 16);
        push.first_row = first_panel * kLanes;
        push.n_rows = n_rows;
        push.n_k = m.n_k;
        push.y_stride = stride;
        const KernelPlan plan = plan_embed(m.q.type, m.n_k);
        dispatch(kernel(plan.module, plan.constants), push, plan.groups(groups_y));
        return download<float>(y, std::size_t{groups_y} * stride);
    }
};

/// The scalar decode of each row to the bit: no type needs more than one rounding.
TEST_F(VulkanEmbed, GivesTheDecodedRows) {
    for (const QuantInfo& q : all_types()) {
        for (const Fill fill : {Fill::normal, Fill::subnormal, Fill::raw, Fill::zero}) {
            const std::uint32_t rows = 50, k = q.block_elements == 1 ? 77 : q.block_elements == 32 ? 288 : 512;
            const std::uint32_t stride = (k + 7) / 4 * 4;
            SCOPED_TRACE(label(q, rows, k, 1, static_cast<int>(fill)));
            const Matrix m(q, fill, rows, k, rng);
            const std::vector<std::uint32_t> tokens{0, 49, 17, 5, 33, 17, 48, 15, 16};
            const std::vector<float> y = embed(m, tokens, 0, rows, stride, 12);
            for (std::size_t i = 0; i < 12; ++i) {
                for (std::uint32_t j = 0; j < stride; ++j) {
                    const float want = i < tokens.size() && j < k ? m.weights[tokens[i] * k + j] : kCanary;
                    // The subnormal numbers of F32 itself may be flushed to zero.
                    if (std::fabs(want) >= std::numeric_limits<float>::min())
                        ASSERT_EQ(y[i * stride + j], want) << i << ", " << j;
                    else
                        ASSERT_LT(std::fabs(y[i * stride + j]), std::numeric_limits<float>::min()) << i << ", " << j;
                }
            }
        }
    }
}

TEST_F(VulkanEmbed, PartsOfAMatrixGiveTheirTokensOnly) {
    const Matrix m(info(DType::Q6_K), Fill::normal, 50, 256, rng);
    const std::vector<std::uint32_t> tokens{0, 49, 31, 32, 16, 15, 4000000000u};
    const std::vector<float> y = embed(m, tokens, 1, 16, 256, 7);
    for (std::size_t i = 0; i < tokens.size(); ++i)
        for (std::uint32_t j = 0; j < 256; ++j)
            ASSERT_EQ(y[i * 256 + j], tokens[i] / 16 == 1 ? m.weights[tokens[i] * 256 + j] : kCanary) << i << ", " << j;
}

class VulkanQuantize : public MatrixTest {};

/// kernels/cpu/ops/quantize_act.inl, but for what a device's division rounds otherwise (2.5 ulp by the rules of
/// Vulkan).
TEST_F(VulkanQuantize, RoundsAsTheDefinitionSays) {
    for (const std::uint32_t n : {32u, 96u, 2080u}) {
        for (const Fill fill : kFills) {
            SCOPED_TRACE("n " + std::to_string(n) + " fill " + std::to_string(static_cast<int>(fill)));
            const std::uint32_t n_cols = 3;
            std::vector<float> in = floats(fill, n_cols * n);
            if (fill == Fill::raw)
                for (float& v : in) v = std::ldexp(v, static_cast<int>(rng() % 200) - 130);
            in[n + 3] = std::numeric_limits<float>::quiet_NaN();
            const ActLayout at(n);
            const Buffer x = upload(in),
                         q = upload(std::vector<std::byte>((n_cols + 1) * 2 * at.bytes, std::byte{0x5a}));
            QuantizePush push{};
            push.x = x.address();
            push.q = q.address();
            push.n = n;
            push.x_stride = n / 4;
            push.q_stride = static_cast<std::uint32_t>(2 * at.bytes / 16);
            push.n_cols = n_cols;
            push.fine = 1;
            const KernelPlan plan = plan_quantize(n);
            dispatch(kernel(plan.module, plan.constants), push, plan.groups(n_cols + 1));
            const std::vector<std::byte> out = download<std::byte>(q, (n_cols + 1) * 2 * at.bytes);
            const auto number = [&]<class T>(T, std::size_t offset) {
                T v;
                std::memcpy(&v, out.data() + offset, sizeof(T));
                return v;
            };
            for (std::size_t i = n_cols * 2 * at.bytes; i < out.size(); ++i)
                ASSERT_EQ(out[i], std::byte{0x5a}) << "wrote past the columns";
            for (std::uint32_t c = 0; c < n_cols; ++c) {
                for (std::uint32_t b = 0; b < n / 32; ++b) {
                    const float* v = in.data() + c * n + 32 * b;
                    std::vector<double> left(v, v + 32);
                    for (std::uint32_t term = 0; term < 2; ++term) {
                        const std::size_t p = (2 * c + term) * at.bytes;
                        double amax = 0;
                        for (const double f : left) amax = f == f ? std::max(amax, std::fabs(f)) : amax;
                        const float d = number(0.0f, p + at.d + 4 * b);
                        // Of the second term, amax itself is what the device's own first rounding left.
                        const double ulps = 0x1p-21;
                        ASSERT_NEAR(d, amax / 127,
                                    amax / 127 * ulps +
                                        (term ? number(0.0f, p - at.bytes + at.d + 4 * b) * 127 * ulps : 0) + 1e-37);
                        std::int32_t sums[2] = {0, 0};
                        for (std::uint32_t i = 0; i < 32; ++i) {
                            const int code = number(std::int8_t{}, p + 32 * b + i);
                            sums[i / 16] += code;
                            ASSERT_LE(std::abs(code), 127);
                            if (left[i] != left[i]) {
                                ASSERT_EQ(code, -127);
                            } else if (amax < 0x1p-101) {
                                ASSERT_EQ(code, 0);
                            } else if (amax > 0x1p-99 && term == 0) {
                                ASSERT_NEAR(code, left[i] * 127 / amax, 0.5 + 127 * ulps)
                                    << "column " << c << " value " << 32 * b + i;
                            } else if (amax > 0x1p-99 && term == 1) {
                                // Both terms together: within half a step of the second, and the first's own rounding.
                                ASSERT_NEAR(code * double{d}, left[i],
                                            0.5 * d + std::fabs(double{v[i]}) * 0x1p-23 + amax * 127 * ulps);
                            }
                            left[i] -= code * double{d};
                        }
                        ASSERT_EQ(number(0, p + at.sum16 + 8 * b), sums[0]);
                        ASSERT_EQ(number(0, p + at.sum16 + 8 * b + 4), sums[1]);
                        ASSERT_EQ(number(0, p + at.sum32 + 4 * b), sums[0] + sums[1]);
                        ASSERT_EQ(number(0.0f, p + at.dsum32 + 4 * b), d * static_cast<float>(sums[0] + sums[1]));
                    }
                }
            }
        }
    }
}

}  // namespace
}  // namespace quern::vulkan::test
