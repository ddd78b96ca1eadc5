// SPDX-License-Identifier: Apache-2.0
// Matrix products and the rounding of activations, every type on every table of this machine:
//   against double arithmetic over the decoded weights and the same rounded activations,
//   bit for bit against the scalar table, and bit for bit whatever the number of columns.
#include <algorithm>
#include <array>

#include "formats/dtype.h"
#include "tests/kernels/fills.h"
#include "tests/kernels/ops_support.h"

namespace quern::kernels {
extern const KernelTable kTableAmxEmulated;  // amx_emulated.cpp
}

namespace quern::kernels::test {
namespace {

/// One weight matrix, packed, with its activations rounded by the scalar table.
struct Case {
    const QuantInfo& q;
    std::uint32_t n_rows, n_k, n_cols;
    std::size_t x_stride;
    std::vector<float> weights, x;            // decoded [n_rows][n_k]; given [n_cols][n_k]
    Guarded<std::byte> panels, columns;
    std::size_t panel_stride;

    Case(const QuantInfo& type, const std::vector<std::byte>& rows, std::uint32_t rows_n, std::uint32_t k,
         std::uint32_t cols_n, std::vector<float> activations)
        : q(type), n_rows(rows_n), n_k(k), n_cols(cols_n),
          x_stride(is_quant(type) ? ActLayout(k).bytes : (k * sizeof(float) + 63) / 64 * 64),
          weights(std::size_t{rows_n} * k), x(std::move(activations)),
          panels((rows_n + kLanes - 1) / kLanes * panel_bytes(type.type, k)), columns(cols_n * x_stride),
          panel_stride(panel_bytes(type.type, k)) {
        const std::size_t row = row_bytes(q.type, n_k).value();
        q.decode(rows.data(), weights.data(), weights.size());
        for (std::uint32_t r = 0; r < n_rows; r += kLanes)
            pack_panel(q.type, rows.data() + r * row, row, std::min(kLanes, n_rows - r), n_k,
                       panels.data() + r / kLanes * panel_stride);
        for (std::uint32_t c = 0; c < n_cols; ++c) {
            std::byte* column = columns.data() + c * x_stride;
            if (is_quant(q)) {
                scalar_table().quantize_act(x.data() + std::size_t{c} * n_k, 0, n_k, n_k, column);
            } else {
                std::memcpy(column, x.data() + std::size_t{c} * n_k, n_k * sizeof(float));
            }
        }
    }

    /// Activation k of column c as the kernels see it.
    double act(std::uint32_t c, std::uint32_t k) const {
        if (!is_quant(q)) return x[std::size_t{c} * n_k + k];
        const std::byte* column = columns.data() + c * x_stride;
        float d;
        std::memcpy(&d, column + ActLayout(n_k).d + k / 32 * 4, 4);
        return static_cast<double>(static_cast<std::int8_t>(column[k])) * d;
    }
};

constexpr float kCanary = 12345.5f;

struct Options {
    bool add = false;
    const float* bias = nullptr;
    std::uint32_t first_col = 0, n_cols = 0;
    bool pairs = false;
};

/// y [columns][n_rows + 3] with canaries in the last three; the buffer ends at an unreadable page.
std::vector<float> multiply(const KernelTable& table, const Case& m, Options o, std::vector<float> old = {}) {
    const std::size_t stride = m.n_rows + 3;
    const std::uint32_t t = type_index(m.q.type);
    const std::uint32_t n_x = o.n_cols ? o.n_cols : m.n_cols, n_cols = o.pairs ? n_x / 2 : n_x;
    // The last column has no canaries: its last row touches the page.
    const Guarded<float> y(n_cols * stride - 3);
    std::fill_n(y.data(), y.size(), kCanary);
    for (std::uint32_t c = 0; c < n_cols; ++c)
        for (std::uint32_t r = 0; r < m.n_rows && !old.empty(); ++r) y[c * stride + r] = old[c * m.n_rows + r];
    // Guarded ends at a page, so rounding up to 64 keeps the start aligned.
    const Guarded<std::byte> scratch((table.matmul_scratch[t](m.n_k) + 63) / 64 * 64);
    Guarded<float> bias(o.bias ? m.n_rows : 0);
    if (o.bias) std::memcpy(bias.data(), o.bias, m.n_rows * sizeof(float));
    table.matmul[t]({m.panels.data(), m.panel_stride, m.n_rows, m.n_k, m.columns.data() + o.first_col * m.x_stride,
                     m.x_stride, n_x, y.data(), stride, o.bias ? bias.data() : nullptr, o.add, o.pairs,
                     scratch.size() ? scratch.data() : nullptr});
    std::vector<float> out;
    for (std::uint32_t c = 0; c < n_cols; ++c) {
        out.insert(out.end(), y.data() + c * stride, y.data() + c * stride + m.n_rows);
        for (std::uint32_t i = 0; i < 3 && c + 1 < n_cols; ++i)
            EXPECT_EQ(y[c * stride + m.n_rows + i], kCanary) << "wrote past the rows of column " << c;
    }
    return out;
}

/// Each element of y within (roundings) * 2^-24 of the sum of magnitudes of its terms.
void expect_near_double(const Case& m, const std::vector<float>& y) {
    std::vector<double> acts(std::size_t{m.n_cols} * m.n_k);
    for (std::uint32_t c = 0; c < m.n_cols; ++c)
        for (std::uint32_t k = 0; k < m.n_k; ++k) acts[std::size_t{c} * m.n_k + k] = m.act(c, k);
    // A 32-block makes at most two groups, each: ws * d, its multiply-add, a minimum's product and multiply-add; the
    // decoder's own roundings, which the kernels do not make, are two a value. Floats: one multiply-add a value.
    const double roundings = is_quant(m.q) ? 4.0 * 2 * (m.n_k / 32.0) + 4 : m.n_k + 1.0;
    for (std::uint32_t c = 0; c < m.n_cols; ++c) {
        for (std::uint32_t r = 0; r < m.n_rows; ++r) {
            double want = 0, size = 0;
            const float* weights = m.weights.data() + std::size_t{r} * m.n_k;
            const double* x = acts.data() + std::size_t{c} * m.n_k;
            for (std::uint32_t k = 0; k < m.n_k; ++k) {
                const double term = double{weights[k]} * x[k];
                want += term;
                size += std::fabs(term);
            }
            const float got = y[std::size_t{c} * m.n_rows + r];
            ASSERT_NEAR(got, want, roundings * kUlpHalf * size + 1e-37) << "row " << r << " column " << c;
        }
    }
}

std::string label(const QuantInfo& q, std::uint32_t rows, std::uint32_t k, std::uint32_t cols, Fill fill) {
    return std::string(q.name) + " rows " + std::to_string(rows) + " k " + std::to_string(k) + " columns " +
           std::to_string(cols) + " fill " + std::to_string(static_cast<int>(fill));
}

Case make_case(const QuantInfo& q, Fill fill, std::uint32_t rows, std::uint32_t k, std::uint32_t cols,
               std::mt19937& rng) {
    const std::vector<std::byte> w = weight_rows(q, fill, rows, k, rng);
    return Case(q, w, rows, k, cols, values(fill == Fill::raw ? Fill::normal : fill, std::size_t{k} * cols, rng));
}

std::vector<std::uint32_t> depths(const QuantInfo& q) {
    if (q.block_elements == 256) return {256, 1024};
    if (q.block_elements == 32) return {32, 96, 832};  // 832: more blocks than one slice, an odd rest
    return {1, 31, 300};
}

TEST_P(EveryTable, MatmulIsRightForEveryFill) {
    for (const QuantInfo& q : all_types()) {
        for (const Fill fill : kFills) {
            for (const std::uint32_t cols : {1u, 3u, 33u}) {
                const std::uint32_t k = depths(q).back();
                SCOPED_TRACE(label(q, 33, k, cols, fill));
                const Case& m = shared([&] { return make_case(q, fill, 33, k, cols, rng); });
                // The scalar table is near double precision, and the others have its bits.
                const std::vector<float>& want = shared([&] {
                    std::vector<float> out = multiply(scalar_table(), m, {});
                    expect_near_double(m, out);
                    return out;
                });
                if (HasFatalFailure()) return;
                if (is_scalar()) continue;
                const std::vector<float> y = multiply(table(), m, {});
                ASSERT_EQ(first_difference(y.data(), want.data(), y.size()), y.size());
            }
        }
    }
}

/// With scales of one nothing rounds: the integer part alone, exact.
TEST_P(EveryTable, IntegersAreExact) {
    for (const QuantInfo& q : all_types()) {
        const std::uint32_t k = q.block_elements == 1 ? 64 : q.block_elements, rows = 35, cols = 21;
        SCOPED_TRACE(label(q, rows, k, cols, Fill::raw));
        std::vector<std::byte> w = weight_rows(q, Fill::raw, rows, k, rng);
        for (std::size_t at = 0; is_quant(q) && at < w.size(); at += q.block_bytes)
            set_scales_to_one(q, w.data() + at);
        if (!is_quant(q)) {
            std::vector<float> small(std::size_t{rows} * k);
            for (float& v : small) v = static_cast<float>(static_cast<int>(rng() % 255) - 127);
            q.encode(small.data(), w.data(), small.size());
        }
        // Magnitude 127 in each block keeps d at 1; few other values keep every sum below 2^24, where floats are exact.
        std::vector<float> x(std::size_t{k} * cols);
        for (std::size_t i = 0; i < x.size(); ++i)
            x[i] = i % 32 == 7 ? 127.0f : i % 3 == 0 ? static_cast<float>(static_cast<int>(rng() % 5) - 2) : 0.0f;
        const Case m(q, w, rows, k, cols, x);
        const std::vector<float> y = multiply(table(), m, {});
        for (std::uint32_t c = 0; c < cols; ++c)
            for (std::uint32_t r = 0; r < rows; ++r) {
                double want = 0;
                for (std::uint32_t i = 0; i < k; ++i) want += double{m.weights[std::size_t{r} * k + i]} * m.act(c, i);
                ASSERT_EQ(y[std::size_t{c} * rows + r], want) << "row " << r << " column " << c;
            }
    }
}

/// Every remainder of rows, columns and depth, against the scalar table; single columns of the same call.
TEST_P(EveryTable, SameBitsAsScalarAndAsSingleColumns) {
    const std::uint32_t columns[] = {1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 16, 31, 32, 33, 64, 100};
    const std::uint32_t row_counts[] = {1, 15, 16, 17, 33, 64};
    std::size_t turn = 0;
    for (const QuantInfo& q : all_types()) {
        for (const std::uint32_t k : depths(q)) {
            for (const std::uint32_t cols : columns) {
                // Each (depth, columns) meets some row counts; all of them are met over the types and depths.
                for (std::size_t i = 0; i < (kEvery > 1 ? 1 : 2); ++i) {
                    const std::uint32_t rows = row_counts[turn++ % std::size(row_counts)];
                    const Fill fill = turn % 3 == 0 ? Fill::raw : Fill::normal;
                    SCOPED_TRACE(label(q, rows, k, cols, fill));
                    const Case& m = shared([&] { return make_case(q, fill, rows, k, cols, rng); });
                    const std::vector<float>& want = shared([&] { return multiply(scalar_table(), m, {}); });
                    const std::vector<float> y = is_scalar() ? want : multiply(table(), m, {});
                    if (!is_scalar()) {
                        const std::size_t at = first_difference(y.data(), want.data(), y.size());
                        ASSERT_EQ(at, y.size()) << "row " << at % rows << " column " << at / rows << ": " << y[at]
                                                << " for " << want[at];
                    }
                    for (std::uint32_t c = 0; c < cols; c += cols > 8 ? 7 : 1) {
                        const std::vector<float> one = multiply(table(), m, {.first_col = c, .n_cols = 1});
                        const std::size_t at = first_difference(one.data(), y.data() + std::size_t{c} * rows, rows);
                        ASSERT_EQ(at, rows) << "column " << c << " alone differs";
                    }
                }
            }
        }
    }
}

TEST_P(EveryTable, BiasThenOldValueAreAdded) {
    for (const QuantInfo& q : all_types()) {
        for (const std::uint32_t cols : {1u, 6u, 40u}) {
            const std::uint32_t rows = 49, k = depths(q).front();
            SCOPED_TRACE(label(q, rows, k, cols, Fill::normal));
            const Case m = make_case(q, Fill::normal, rows, k, cols, rng);
            const std::vector<float> plain = multiply(table(), m, {}), bias = random_floats(rows, 1.0f, rng),
                                     old = random_floats(std::size_t{rows} * cols, 1.0f, rng);
            for (const int which : {1, 2, 3}) {
                const std::vector<float> y =
                    multiply(table(), m, {.add = (which & 2) != 0, .bias = which & 1 ? bias.data() : nullptr}, old);
                for (std::size_t i = 0; i < y.size(); ++i) {
                    float want = plain[i];
                    if (which & 1) want = want + bias[i % rows];
                    if (which & 2) want = old[i] + want;
                    ASSERT_TRUE(same_bits(y[i], want)) << "element " << i << " variant " << which;
                }
            }
        }
    }
}

/// Two columns a result: the first one's (with bias and old value), then the second one's on top.
TEST_P(EveryTable, PairsAddUp) {
    for (const QuantInfo& q : all_types()) {
        if (!is_quant(q)) continue;
        for (const std::uint32_t cols : {2u, 6u, 10u, 38u, 280u}) {
            const std::uint32_t rows = cols == 280 ? 33 : 81, k = depths(q).front();
            SCOPED_TRACE(label(q, rows, k, cols, Fill::normal));
            const Case m = make_case(q, Fill::normal, rows, k, cols, rng);
            const std::vector<float> plain = multiply(table(), m, {}), bias = random_floats(rows, 1.0f, rng),
                                     old = random_floats(std::size_t{rows} * cols / 2, 1.0f, rng);
            for (const bool all : {false, true}) {
                const std::vector<float> y =
                    multiply(table(), m, {.add = all, .bias = all ? bias.data() : nullptr, .pairs = true}, old);
                for (std::size_t i = 0; i < y.size(); ++i) {
                    const std::size_t c = i / rows, r = i % rows;
                    float want = plain[2 * c * rows + r];
                    if (all) want = old[i] + (want + bias[r]);
                    want = want + plain[(2 * c + 1) * rows + r];
                    ASSERT_TRUE(same_bits(y[i], want)) << "element " << i << " with bias and old value: " << all;
                }
            }
        }
    }
}

/// NaN and infinite scales: the same elements are NaN, everything else is the same to the bit.
TEST_P(EveryTable, NonFiniteScalesMeanTheSame) {
    for (const QuantInfo& q : all_types()) {
        if (!is_quant(q)) continue;
        const std::uint32_t k = 256, rows = 32, cols = 20;
        SCOPED_TRACE(label(q, rows, k, cols, Fill::raw));
        std::vector<std::byte> w = weight_rows(q, Fill::raw, rows, k, rng);
        for (std::size_t at = 0; at < w.size(); at += q.block_bytes * 7)
            set_scale_not_finite(q, w.data() + at);
        const Case m(q, w, rows, k, cols, values(Fill::normal, std::size_t{k} * cols, rng));
        const std::vector<float>& want = shared([&] { return multiply(scalar_table(), m, {}); });
        const std::vector<float> y = multiply(table(), m, {});
        EXPECT_EQ(first_difference(y.data(), want.data(), y.size()), y.size());
    }
}

TEST_P(EveryTable, OneChangedWeightBitChangesTheResult) {
    for (const QuantInfo& q : all_types()) {
        const std::uint32_t k = q.block_elements == 1 ? 32 : q.block_elements, rows = 16;
        for (const std::uint32_t cols : {1u, 24u}) {
            std::vector<std::byte> w = weight_rows(q, Fill::normal, rows, k, rng);
            std::vector<float> x = values(Fill::normal, std::size_t{k} * cols, rng);
            for (float& v : x) v += std::copysign(1.0f, v);  // no activation rounds to zero
            const std::vector<float> before = multiply(table(), Case(q, w, rows, k, cols, x), {});
            // The lowest bit of each byte of the first block: codes, scales and minima alike.
            for (std::size_t byte = 0; byte < q.block_bytes; ++byte) {
                std::vector<std::byte> changed = w;
                changed[byte] ^= std::byte{1};
                std::vector<float> a(q.block_elements), b(q.block_elements);
                q.decode(w.data(), a.data(), a.size());
                q.decode(changed.data(), b.data(), b.size());
                // Left out: bits without effect on these codes, and mantissa bits that a sum may round away.
                double change = 0;
                for (std::size_t i = 0; i < a.size(); ++i)
                    change = std::max(change, std::fabs(double{b[i]} - a[i]) / std::max(1e-3, std::fabs(double{a[i]})));
                if (change < 0x1p-12) continue;
                const std::vector<float> after = multiply(table(), Case(q, changed, rows, k, cols, x), {});
                EXPECT_NE(before, after) << q.name << " byte " << byte << " columns " << cols;
            }
        }
    }
}

TEST_P(EveryTable, QuantizeActEqualsTheDefinition) {
    for (const std::uint32_t n : {32u, 64u, 96u, 576u, 2048u}) {
        for (const Fill fill : kFills) {
            SCOPED_TRACE("n " + std::to_string(n) + " fill " + std::to_string(static_cast<int>(fill)));
            std::vector<float> in = values(fill, n, rng);
            if (fill == Fill::raw)
                for (std::size_t i = 0; i < n; ++i) in[i] = std::ldexp(in[i], static_cast<int>(rng() % 200) - 130);
            const Guarded<float> x(in);
            const ActLayout at(n);
            const Guarded<std::byte> out(at.bytes);
            table().quantize_act(x.data(), 0, n, n, out.data());
            const auto* q = reinterpret_cast<const std::int8_t*>(out.data());
            const auto number = [&]<class T>(T, std::size_t offset, std::size_t i) {
                T v;
                std::memcpy(&v, out.data() + offset + i * sizeof(T), sizeof(T));
                return v;
            };
            for (std::uint32_t b = 0; b < n / 32; ++b) {
                float amax = 0;
                std::int32_t sums[2] = {0, 0};
                for (std::uint32_t i = 0; i < 32; ++i) amax = std::max(amax, std::fabs(in[b * 32 + i]));
                const float d = number(0.0f, at.d, b);
                ASSERT_EQ(d, amax / 127.0f);
                for (std::uint32_t i = 0; i < 32; ++i) {
                    const int code = q[b * 32 + i];
                    sums[i / 16] += code;
                    ASSERT_LE(std::abs(code), 127);
                    if (amax < 0x1p-100f) {
                        ASSERT_EQ(code, 0);
                        continue;
                    }
                    // Half a step, and the two roundings of x * (127 / amax).
                    const double exact = double{in[b * 32 + i]} * 127.0 / double{amax};
                    ASSERT_NEAR(code, exact, 0.5 + 2 * 127 * kUlpHalf) << "value " << i << " of block " << b;
                }
                ASSERT_EQ(number(0, at.sum16, 2 * b), sums[0]);
                ASSERT_EQ(number(0, at.sum16, 2 * b + 1), sums[1]);
                ASSERT_EQ(number(0, at.sum32, b), sums[0] + sums[1]);
                ASSERT_EQ(number(0.0f, at.dsum32, b), d * static_cast<float>(sums[0] + sums[1]));
            }
        }
    }
}

TEST_P(EveryTable, QuantizeActGivesTheSameBytesForAnyInput) {
    for (int round = 0; round < 200; ++round) {
        constexpr std::uint32_t n = 256;
        std::vector<std::uint32_t> bits(n);
        for (std::uint32_t& u : bits) u = static_cast<std::uint32_t>(rng());
        if (round % 2)  // some blocks finite, some with NaN or infinity
            for (std::size_t i = 0; i < n; ++i) bits[i] = (bits[i] & 0x80ffffffu) | 0x3f000000u;
        constexpr std::array kOdd{0x7f800000u, 0x7fc00000u, 0xff800000u};  // infinity, NaN, -infinity
        for (const std::size_t i : {3u, 40u, 77u}) bits[i] = kOdd[static_cast<std::size_t>(round) % kOdd.size()];
        const Guarded<float> x(n);
        std::memcpy(x.data(), bits.data(), n * sizeof(float));
        const ActLayout at(n);
        for (const auto quantize : {&KernelTable::quantize_act, &KernelTable::quantize_act_fine}) {
            const std::size_t columns = quantize == &KernelTable::quantize_act_fine ? 2 : 1;
            const Guarded<std::byte> got(columns * at.bytes), want(got.size());
            const std::uint32_t part = 32 * (1 + static_cast<std::uint32_t>(round) % 7);  // in two parts
            (table().*quantize)(x.data(), 0, part, n, got.data());
            (table().*quantize)(x.data() + part, part, n - part, n, got.data());
            (scalar_table().*quantize)(x.data(), 0, n, n, want.data());
            for (std::size_t from = 0; from < got.size(); from += at.bytes) {
                ASSERT_EQ(std::memcmp(&got[from], &want[from], at.d), 0) << "codes, round " << round;
                const auto* a = reinterpret_cast<const float*>(&got[from + at.d]);
                const auto* b = reinterpret_cast<const float*>(&want[from + at.d]);
                const std::size_t words = (at.bytes - at.d) / 4;
                ASSERT_EQ(first_difference(a, b, words), words) << "sums, round " << round;
            }
        }
    }
}

std::vector<const KernelTable*> tables() {
    std::vector<const KernelTable*> out = runnable_tables();
#if defined(__x86_64__)
    if ((kTableAmxEmulated.needs & ~cpu_features()) == 0) out.push_back(&kTableAmxEmulated);
#endif
    return out;
}

INSTANTIATE_TEST_SUITE_P(Matmul, EveryTable, testing::ValuesIn(tables()), table_name);

}  // namespace
}  // namespace quern::kernels::test
