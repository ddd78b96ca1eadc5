// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <limits>

#include "tests/kernels/ops_support.h"

#define QUERN_ISA_NS math_under_test
#include "kernels/cpu/simd/scalar.h"  // before what is written over it
// clang-format off
#include "kernels/cpu/ops/math.inl"
// clang-format on

namespace quern::kernels::test {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
const std::uint32_t kSizes[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 100, 576, 2048, 4099};

/// Distance from `got` to the exact value, in units of the spacing of floats there.
double ulps(float got, double want) {
    if (std::isinf(got) && want >= std::numeric_limits<float>::max()) return 0;
    int e = 0;
    std::frexp(want, &e);
    return std::fabs(got - want) / std::ldexp(1.0, std::max(e - 24, -149));
}

using Lanes = math_under_test::F32x16;

/// Largest error of f over every `step`-th float of magnitude at most `limit`, both signs.
template <class F, class Reference>
double worst_ulps(F f, Reference reference, float limit, std::uint32_t step) {
    double worst = 0;
    Lanes in{}, out{};
    for (std::uint32_t u = 0; u <= std::bit_cast<std::uint32_t>(limit); u += 8 * step) {
        for (std::uint32_t i = 0; i < 16; ++i) in.v[i] = std::bit_cast<float>((u + i / 2 * step) | (i & 1u) << 31);
        out = f(in);
        for (int i = 0; i < 16; ++i)
            if (std::fabs(in.v[i]) <= limit) worst = std::max(worst, ulps(out.v[i], reference(double{in.v[i]})));
    }
    return worst;
}

// Measured 0.57 and 2.2 ulp. Steps are odd, so that all low bits vary.
TEST(Math, ExpIsWithinOneUlp) {
    EXPECT_LE(worst_ulps([](Lanes x) { return math_under_test::f_exp(x); }, [](double x) { return std::exp(x); },
                         105.0f, 401),
              1.0);
}
TEST(Math, TanhIsWithinThreeUlps) {
    EXPECT_LE(worst_ulps([](Lanes x) { return math_under_test::f_tanh(x); }, [](double x) { return std::tanh(x); },
                         30.0f, 401),
              3.0);
}

TEST(Math, ExpEdges) {
    const Lanes in{{0.0f, -0.0f, -kInf, kInf, kNan, -104.1f, -1e30f, 89.0f, 1e30f, 88.7f, -103.9f, -87.4f, 1e-40f,
                    -1e-40f, 1.0f, -1.0f}};
    const Lanes out = math_under_test::f_exp(in);
    EXPECT_EQ(out.v[0], 1.0f);
    EXPECT_EQ(out.v[1], 1.0f);
    EXPECT_EQ(out.v[2], 0.0f);
    EXPECT_EQ(out.v[3], kInf);
    EXPECT_TRUE(std::isnan(out.v[4]));
    EXPECT_EQ(out.v[5], 0.0f);
    EXPECT_EQ(out.v[6], 0.0f);
    EXPECT_EQ(out.v[7], kInf);
    EXPECT_EQ(out.v[8], kInf);
    EXPECT_TRUE(std::isfinite(out.v[9]));
    EXPECT_EQ(out.v[10], 0x1p-149f);
    EXPECT_GT(out.v[11], 0.0f);  // subnormal, kept
    EXPECT_EQ(out.v[12], 1.0f);
    EXPECT_EQ(out.v[13], 1.0f);
    EXPECT_TRUE(std::isnan(math_under_test::f_tanh(in).v[4]));
    EXPECT_EQ(math_under_test::f_tanh(in).v[2], -1.0f);
    EXPECT_EQ(math_under_test::f_tanh(in).v[3], 1.0f);
}

TEST(Math, ExpOfNegativeHasTheBitsOfExp) {
    Lanes in{};
    for (std::uint32_t u = 0x80000000u; u <= std::bit_cast<std::uint32_t>(-kInf) - 16 * 977; u += 16 * 977) {
        for (std::uint32_t i = 0; i < 16; ++i) in.v[i] = std::bit_cast<float>(u + i * 977);
        const Lanes a = math_under_test::f_exp(in), b = math_under_test::f_exp_neg(in);
        if (in.v[0] >= -64.0f) {
            ASSERT_EQ(std::memcmp(&a, &b, sizeof a), 0) << in.v[0];
        } else if (in.v[0] < -64.2f) {
            for (const float v : b.v) ASSERT_EQ(v, 0.0f) << in.v[0];
        }
    }
}

class Ops : public EveryTable {};
INSTANTIATE_TEST_SUITE_P(Tables, Ops, testing::ValuesIn(runnable_tables()), table_name);

TEST_P(Ops, RmsNorm) {
    for (const std::uint32_t n : kSizes) {
        for (const bool weighted : {false, true}) {
            SCOPED_TRACE(testing::Message() << "n " << n << " weighted " << weighted);
            const Guarded<float> x(random_floats(n, 3.0f, rng)), w(random_floats(n, 1.0f, rng)), out(n), ref(n);
            const float* wp = weighted ? w.data() : nullptr;
            table().rms_norm(x.data(), wp, 1e-5f, n, out.data());
            double sum = 0;
            for (std::uint32_t i = 0; i < n; ++i) sum += double{x[i]} * x[i];
            const double inv = 1.0 / std::sqrt(sum / n + double{1e-5f});
            // A lane's chain of n / 16 roundings and the tree's 4, all of positive terms, halved by the root; then
            // mean, eps, root, reciprocal, two products.
            const double rel = ((n / 16.0 + 5) / 2 + 6) * kUlpHalf;
            for (std::uint32_t i = 0; i < n; ++i) {
                const double want = x[i] * inv * (weighted ? double{w[i]} : 1.0);
                ASSERT_NEAR(out[i], want, rel * std::fabs(want)) << i;
            }
            scalar_table().rms_norm(x.data(), wp, 1e-5f, n, ref.data());
            ASSERT_EQ(first_difference(out.data(), ref.data(), n), n);
            table().rms_norm(x.data(), wp, 1e-5f, n, x.data());  // in place
            ASSERT_EQ(first_difference(out.data(), x.data(), n), n);
        }
    }
}

TEST_P(Ops, RmsNormOfZerosIsZero) {
    const Guarded<float> x(33), out(33);
    table().rms_norm(x.data(), nullptr, 1e-6f, 33, out.data());
    for (int i = 0; i < 33; ++i) EXPECT_EQ(out[i], 0.0f);
}

TEST_P(Ops, Rope) {
    struct Shape {
        std::uint32_t heads, head_dim, n_rot;
    };
    for (const Shape s : {Shape{1, 32, 32}, {3, 64, 64}, {2, 80, 32}, {5, 128, 128}, {2, 100, 50}, {4, 96, 72}}) {
        for (const bool neox : {false, true}) {
            SCOPED_TRACE(testing::Message() << s.heads << 'x' << s.head_dim << " rot " << s.n_rot << " neox " << neox);
            const std::vector<float> before = random_floats(s.heads * s.head_dim, 2.0f, rng);
            const Guarded<float> x(before), ref(before), cs(s.n_rot);
            for (std::uint32_t i = 0; i < s.n_rot / 2; ++i) {
                const double angle = 1234.0 * std::pow(10000.0, -2.0 * i / s.n_rot);
                cs[2 * i] = static_cast<float>(std::cos(angle));
                cs[2 * i + 1] = static_cast<float>(std::sin(angle));
            }
            const auto rope = [&](const KernelTable& t) { return neox ? t.rope_neox : t.rope_norm; };
            rope(table())(x.data(), s.heads, s.head_dim, s.n_rot, cs.data());
            for (std::uint32_t h = 0; h < s.heads; ++h) {
                const std::uint32_t at = h * s.head_dim;
                for (std::uint32_t i = 0; i < s.n_rot / 2; ++i) {
                    const std::uint32_t ia = at + (neox ? i : 2 * i), ib = neox ? ia + s.n_rot / 2 : ia + 1;
                    const double a = before[ia], b = before[ib], c = cs[2 * i], d = cs[2 * i + 1];
                    // Two products and their sum, each rounded once.
                    const double tol = 2 * kUlpHalf * (1 + 1e-6);
                    ASSERT_NEAR(x[ia], a * c - b * d, tol * (std::fabs(a * c) + std::fabs(b * d)));
                    ASSERT_NEAR(x[ib], a * d + b * c, tol * (std::fabs(a * d) + std::fabs(b * c)));
                }
                for (std::uint32_t i = s.n_rot; i < s.head_dim; ++i) ASSERT_EQ(x[at + i], before[at + i]);
            }
            rope(scalar_table())(ref.data(), s.heads, s.head_dim, s.n_rot, cs.data());
            ASSERT_EQ(first_difference(x.data(), ref.data(), x.size()), x.size());
        }
    }
}

double silu(double x, double* argument) {
    *argument = 0;  // -x is exact
    return x / (1 + std::exp(-x));
}
double gelu(double x, double* argument) {
    const double u = 0.7978845608028654 * (x + 0.044715 * x * x * x);
    *argument = 2 * u;
    return 0.5 * x * (1 + std::tanh(u));
}

TEST_P(Ops, GatedActivations) {
    for (const std::uint32_t n : kSizes) {
        for (const bool ge : {false, true}) {
            SCOPED_TRACE(testing::Message() << "n " << n << " gelu " << ge);
            std::vector<float> g = random_floats(n, 4.0f, rng);
            const float special[] = {0.0f, -0.0f, 60.0f, -60.0f, 1e4f, 1e-30f, -1e-30f, 12.0f, -12.0f};
            for (std::size_t i = 0; i < std::size(special) && i < n; ++i) g[n - 1 - i] = special[i];
            const Guarded<float> gate(g), up(random_floats(n, 1.0f, rng)), out(n), ref(n);
            const auto op = [&](const KernelTable& t) { return ge ? t.geglu : t.swiglu; };
            op(table())(gate.data(), up.data(), n, out.data());
            for (std::uint32_t i = 0; i < n; ++i) {
                double argument = 0;
                const double act = ge ? gelu(gate[i], &argument) : silu(gate[i], &argument), want = act * up[i];
                // exp within 1 ulp = 2 halves, plus its argument's five roundings magnified by the argument; add,
                // divide, multiply. 1 + tanh cancels in the reference too: there an absolute bound remains.
                const double rel = (6 + 5 * std::fabs(argument)) * kUlpHalf;
                ASSERT_NEAR(out[i], want, rel * std::fabs(want) + 1e-15 * std::fabs(gate[i]) + 0x1p-148) << gate[i];
            }
            op(scalar_table())(gate.data(), up.data(), n, ref.data());
            ASSERT_EQ(first_difference(out.data(), ref.data(), n), n);
            op(table())(gate.data(), up.data(), n, gate.data());  // in place
            ASSERT_EQ(first_difference(out.data(), gate.data(), n), n);
        }
    }
}

/// exp and its edges, through the only table entry that shows it: the same bits on every table.
TEST_P(Ops, SwigluHasTheSameBitsOverAllFloats) {
    constexpr std::uint32_t kChunk = 4096, kStep = 65521;
    std::vector<float> x(kChunk), one(kChunk, 1.0f), a(kChunk), b(kChunk);
    for (std::uint64_t u = 0; u < 1ull << 32;) {
        for (float& v : x) v = std::bit_cast<float>(static_cast<std::uint32_t>(u)), u += kStep;
        table().swiglu(x.data(), one.data(), kChunk, a.data());
        scalar_table().swiglu(x.data(), one.data(), kChunk, b.data());
        const std::size_t at = first_difference(a.data(), b.data(), kChunk);
        ASSERT_EQ(at, kChunk) << x[at] << ": " << a[at] << " and " << b[at];
    }
}

TEST_P(Ops, AddAndScaleAreExact) {
    for (const std::uint32_t n : kSizes) {
        const Guarded<float> a(random_floats(n, 1e3f, rng)), b(random_floats(n, 1.0f, rng)), out(n);
        table().add(a.data(), b.data(), n, out.data());
        for (std::uint32_t i = 0; i < n; ++i) ASSERT_EQ(out[i], a[i] + b[i]);
        table().scale(a.data(), 0.1f, n, out.data());
        for (std::uint32_t i = 0; i < n; ++i) ASSERT_EQ(out[i], a[i] * 0.1f);
    }
}

TEST_P(Ops, ArgmaxFindsTheFirstLargest) {
    for (const std::uint32_t n : {1u, 2u, 15u, 16u, 17u, 1023u, 1024u, 1025u, 4099u, 49152u}) {
        SCOPED_TRACE(n);
        const Guarded<float> x(random_floats(n, 1.0f, rng));
        const auto want = static_cast<std::uint32_t>(std::max_element(x.data(), x.data() + n) - x.data());
        ASSERT_EQ(table().argmax(x.data(), n), want);
        for (const std::uint32_t first : {0u, n / 3, n - 1}) {
            x[first] = 100.0f;
            for (std::uint32_t i = first; i < n; i += n / 5 + 1) x[i] = 100.0f;  // ties, all later
            ASSERT_EQ(table().argmax(x.data(), n), first);
            for (std::uint32_t i = 0; i < n; ++i) x[i] = std::min(x[i], 1.0f - 0.01f * static_cast<float>(i % 7));
        }
    }
}

TEST_P(Ops, ArgmaxIgnoresNan) {
    for (const std::uint32_t n : {1u, 16u, 40u, 3000u}) {
        SCOPED_TRACE(n);
        const Guarded<float> x(std::vector<float>(n, kNan));
        EXPECT_EQ(table().argmax(x.data(), n), 0u);
        x[n - 1] = -kInf;
        EXPECT_EQ(table().argmax(x.data(), n), n - 1);
        x[n / 2] = -5.0f;
        EXPECT_EQ(table().argmax(x.data(), n), n / 2);
    }
    const Guarded<float> z(std::vector<float>{-1.0f, -0.0f, 0.0f});
    EXPECT_EQ(table().argmax(z.data(), 3), 1u);  // -0 equals +0
    const Guarded<float> low(std::vector<float>(1500, -kInf));
    EXPECT_EQ(table().argmax(low.data(), 1500), 0u);
}

}  // namespace
}  // namespace quern::kernels::test
