// SPDX-License-Identifier: Apache-2.0
// Q8 and Q4 pages: what rounding may lose, and attention over them against softmax in double precision over the values that
// the pages mean, decoded here from their bytes.
#include <algorithm>
#include <numeric>

#include "tests/kernels/ops_support.h"

namespace quern::kernels::test {
namespace {

constexpr std::uint32_t kTokens = kKvGroup;

/// Two heads' worth of pages with shuffled ids; the second head is the one in use. All bytes 0xff at first.
struct Pages {
    KvFormat format;
    std::uint32_t head_dim;
    std::size_t pitch;
    Guarded<std::uint32_t> ids;
    Guarded<std::byte> storage;
    KvHeadView view{};

    static std::size_t head_bytes(KvFormat f, std::uint32_t hd) {
        return is_quantized(f) ? KvQuantLayout(f, hd).bytes : 16 * (hd + (hd + 15) / 16 * 16) * std::size_t{2};
    }
    Pages(KvFormat f, std::uint32_t hd, std::uint32_t n_tokens, std::mt19937& rng)
        : format(f), head_dim(hd), pitch((hd + 15) / 16 * 16),
          ids((n_tokens + per_page() - 1) / per_page()),
          storage(ids.size() * 2 * head_bytes(f, hd)) {
        std::iota(ids.data(), ids.data() + ids.size(), 0u);
        std::shuffle(ids.data(), ids.data() + ids.size(), rng);
        std::memset(storage.data(), 0xff, storage.size());
        const std::size_t bytes = head_bytes(f, hd);
        view = {storage.data(), ids.data(), 2 * bytes, bytes, bytes + (is_quantized(f) ? 0 : std::size_t{16} * hd * 2), per_page(), hd};
    }
    std::uint32_t per_page() const { return is_quantized(format) ? kTokens : 16; }
    const std::byte* page(std::uint32_t t) const { return storage.data() + ids[t / per_page()] * view.page_stride; }
    static double half(const std::byte* p) {
        std::uint16_t h;
        std::memcpy(&h, p, 2);
        return decode_f16(h);
    }
    double k(std::uint32_t t, std::uint32_t d) const {
        const std::byte* p = page(t) + view.k_offset;
        if (!is_quantized(format)) return half(p + (std::size_t{d} * 16 + t % 16) * 2);
        const KvQuantLayout at(format, head_dim);
        const std::uint32_t i = t % kTokens;
        if (format == KvFormat::Q8)
            return std::to_integer<std::int8_t>(p[std::size_t{d} * kTokens + i]) * half(p + at.k_scale + d * 2);
        std::uint32_t word;
        std::memcpy(&word, p + d / 4 * 64 + i % 16 * 4, 4);
        return ((word >> (d % 4 * 8 + i / 16 * 4) & 15) + std::to_integer<std::int8_t>(p[at.k_zero + d]) / 4.0) * k_scale(t, d);
    }
    double k_scale(std::uint32_t t, std::uint32_t d) const {
        const KvQuantLayout at(format, head_dim);
        const std::byte* p = page(t) + view.k_offset + at.k_scale;
        return format == KvFormat::Q4 ? decode_f16(static_cast<std::uint16_t>(std::to_integer<unsigned>(p[d]) << 7)) : half(p + d * 2);
    }
    double v(std::uint32_t t, std::uint32_t d) const {
        const std::byte* p = page(t);
        if (!is_quantized(format)) return half(p + view.v_offset + (t % 16 * pitch + d) * 2);
        const KvQuantLayout at(format, head_dim);
        p += view.k_offset;
        const std::uint32_t i = t % kTokens;
        if (format == KvFormat::Q8)
            return std::to_integer<std::int8_t>(p[at.v_codes + (d / 16 * kTokens + i) * 16 + d % 16]) * v_scale(t);
        std::uint32_t word;
        std::memcpy(&word, p + at.v_codes + (d / 16 * 4 + i / 8) * 64 + d % 16 * 4, 4);
        return (word >> (i % 8 * 4) & 15) * v_scale(t) + half(p + at.v_min + i * 2);
    }
    double v_scale(std::uint32_t t) const {
        return half(page(t) + view.k_offset + KvQuantLayout(format, head_dim).v_scale + t % kTokens * 2);
    }
};

/// n positions (whole groups) stored as F16 and quantized by table t.
struct Cache {
    Pages exact, quant;
    Cache(KvFormat f, std::uint32_t hd, std::uint32_t n, const KernelTable& t, std::mt19937& rng, float mean = 0)
        : exact(KvFormat::F16, hd, n, rng), quant(f, hd, n, rng) {
        std::vector<float> k = random_floats(std::size_t{n} * hd, 1, rng), v = random_floats(k.size(), 1, rng);
        for (std::size_t i = 0; i < k.size(); ++i) k[i] = k[i] * static_cast<float>(1 + i % hd % 7) + mean * static_cast<float>(i % hd % 3);
        scalar_table().kv_store[static_cast<int>(KvFormat::F16)]({exact.view, k.data(), v.data(), hd, hd, n, 0});
        for (std::uint32_t p = 0; p < n; p += kTokens) quantize(t, p);
    }
    void quantize(const KernelTable& t, std::uint32_t pos) const {
        t.kv_quantize[static_cast<int>(quant.format) - kKvExactFormats](
            {exact.view, quant.view, static_cast<std::int32_t>(pos), static_cast<std::int32_t>(pos)});
    }
};

constexpr KvFormat kFormats[] = {KvFormat::Q8, KvFormat::Q4};
constexpr std::uint32_t kHeads[] = {8, 32, 40, 64, 80, 100, 128, 250, 256, 320};

class AttentionQuant : public EveryTable {};
INSTANTIATE_TEST_SUITE_P(Tables, AttentionQuant, testing::ValuesIn(runnable_tables()), table_name);

TEST_P(AttentionQuant, RoundingIsBounded) {
    for (const KvFormat f : kFormats)
        for (const std::uint32_t hd : kHeads)
            for (const float mean : {0.0f, 3.0f, 200.0f}) {
                SCOPED_TRACE(testing::Message() << static_cast<int>(f) << " head " << hd << " mean " << mean);
                const Cache c(f, hd, 2 * kTokens, table(), rng, mean);
                const bool q4 = f == KvFormat::Q4;
                for (std::uint32_t g = 0; g < 2 * kTokens; g += kTokens)
                    for (std::uint32_t d = 0; d < hd; ++d) {
                        double lo = INFINITY, hi = -INFINITY;
                        for (std::uint32_t t = g; t < g + kTokens; ++t) {
                            lo = std::min(lo, c.exact.k(t, d));
                            hi = std::max(hi, c.exact.k(t, d));
                        }
                        // Half a code; Q4's scale rounds up by at most 1/8, and nothing is cut off.
                        const double s = c.quant.k_scale(g, d);
                        const double want = q4 ? std::max((hi - lo) / 14.75, std::fabs(lo) * 4 / 126) : std::max(hi, -lo) / 127;
                        ASSERT_LE(s, want * (q4 ? (1 + 0.125) * (1 + 0x1p-20) : 1 + 0x1p-11)) << d;
                        const double bound = s * (q4 ? 0.5 : 0.5 + 127 * 0x1p-11) * (1 + 0x1p-16);
                        for (std::uint32_t t = g; t < g + kTokens; ++t) {
                            const double e = c.quant.k(t, d) - c.exact.k(t, d);
                            ASSERT_LE(std::fabs(e), bound) << "K " << t << ' ' << d;
                        }
                    }
                for (std::uint32_t t = 0; t < 2 * kTokens; ++t) {
                    const double s = c.quant.v_scale(t);
                    for (std::uint32_t d = 0; d < hd; ++d)
                        ASSERT_NEAR(c.quant.v(t, d), c.exact.v(t, d), s * (0.5 + (q4 ? 15 : 127) * 0x1p-11) * (1 + 0x1p-20)) << "V " << t << ' ' << d;
                }
            }
}

TEST_P(AttentionQuant, SameBytesOnEveryTable) {
    for (const KvFormat f : kFormats)
        for (const std::uint32_t hd : kHeads) {
            const Cache c(f, hd, kTokens, scalar_table(), rng, 2);
            // Odd values too: constants, infinity, NaN, subnormals.
            std::vector<float> k(kTokens * hd, 3.5f), v(kTokens * hd, 0.0f);
            const float odd[] = {INFINITY, -INFINITY, NAN, 6e-8f, -6e-8f, 65504.0f, -0.0f};
            for (std::size_t i = 0; i < std::size(odd); ++i) k[5 * hd + i] = v[(6 + i) * hd + i] = odd[i];
            for (int round = 0; round < 2; ++round) {
                c.quantize(scalar_table(), 0);
                const std::vector<std::byte> want(c.quant.storage.data(), c.quant.storage.data() + c.quant.storage.size());
                std::memset(c.quant.storage.data(), 0xff, want.size());
                c.quantize(table(), 0);
                ASSERT_EQ(std::memcmp(want.data(), c.quant.storage.data(), want.size()), 0) << hd << " round " << round;
                scalar_table().kv_store[static_cast<int>(KvFormat::F16)]({c.exact.view, k.data(), v.data(), hd, hd, kTokens, 0});
            }
        }
}

struct Case {
    KvFormat format;
    std::uint32_t head_dim, n_ctx, n_tokens, n_rep;   // rows see all of n_ctx positions, whole groups
    std::int32_t window = 0;                          // counted from the position after n_ctx
    float softcap = 0;
    std::int32_t first = 0;
    std::uint32_t masked = 0;                         // newest of n_ctx: a mask says which are seen
    bool sees(std::uint32_t token, std::int32_t t) const {
        if (t < first || (window && t <= static_cast<std::int32_t>(n_ctx + token) - window)) return false;
        return t < mask_from() || (mask(token) >> (t - mask_from()) & 1);
    }
    std::int32_t mask_from() const { return static_cast<std::int32_t>(n_ctx - masked); }
    static std::uint64_t mask(std::uint32_t token) { return 0x9e3779b97f4a7c15u * (token + 1) ^ 0xffff00u; }
};

struct Partial { std::vector<float> out, ml; };

Partial run_span(const KernelTable& t, const Case& c, const Pages& pages, const float* q, std::int32_t begin, std::int32_t end,
                 std::uint32_t first, std::uint32_t n) {
    const std::uint32_t hd = c.head_dim, rows = n * c.n_rep;
    const Guarded<float> out(std::vector<float>(std::size_t{rows} * hd, 777.0f)), ml(2 * rows);
    const Guarded<std::byte> scratch(kAttnScratch);
    std::memset(scratch.data(), 0xff, kAttnScratch);
    AttnArgs a{};
    a.kv = pages.view;
    a.begin = begin;
    a.end = end;
    a.q = q + std::size_t{first} * c.n_rep * hd;
    a.q_stride = std::size_t{c.n_rep} * hd;
    a.n_tokens = n;
    a.n_rep = c.n_rep;
    a.pos0 = static_cast<std::int32_t>(c.n_ctx + first);
    a.window = c.window;
    a.scale = 1 / std::sqrt(static_cast<float>(hd));
    a.softcap = c.softcap;
    a.first = c.first;
    const Guarded<std::uint64_t> mask(c.masked ? n : 0);
    for (std::uint32_t i = 0; i < mask.size(); ++i) mask[i] = Case::mask(first + i);
    a.mask = c.masked ? mask.data() : nullptr;
    a.mask_from = c.mask_from();
    a.out = out.data();
    a.out_stride = hd;
    a.ml = ml.data();
    a.scratch = scratch.data();
    t.attention[static_cast<int>(c.format)](a);
    return {{out.data(), out.data() + out.size()}, {ml.data(), ml.data() + ml.size()}};
}

/// One row of one span against double precision.
void expect_row_near(const Case& c, const Pages& pages, std::uint32_t token, const float* q, std::int32_t begin, std::int32_t end,
                     const float* out, const float* ml) {
    const std::uint32_t hd = c.head_dim;
    std::vector<double> p;
    double max = -INFINITY, score_error = 0;
    for (std::int32_t t = begin; t < end; ++t) {
        p.push_back(-INFINITY);
        if (!c.sees(token, t)) continue;
        double dot = 0, size = 0;
        for (std::uint32_t d = 0; d < hd; ++d) {
            const double s = q[d] * pages.k_scale(static_cast<std::uint32_t>(t), d), x = q[d] * pages.k(static_cast<std::uint32_t>(t), d);
            dot += x;
            size += std::fabs(x) + (c.format == KvFormat::Q4 ? std::fabs(s) * (15 + 127 / 4.0) : 0);   // terms before they cancel
        }
        const double scale = 1 / std::sqrt(static_cast<double>(hd));
        double score = dot * scale, error = 2 * (hd + 4) * kUlpHalf * size * scale;
        if (c.softcap != 0) {
            score = c.softcap * std::tanh(score / c.softcap);
            error += 8 * kUlpHalf * std::fabs(score);
        }
        score_error = std::max(score_error, error + kUlpHalf * std::fabs(score));
        max = std::max(max, score);
        p.back() = score;
    }
    double sum = 0;
    for (double& x : p) sum += x = std::exp(x - max);
    ASSERT_NEAR(ml[0], max, score_error);
    const double rel = 4 * score_error + (2 * (256 + 16) + 8) * kUlpHalf;
    ASSERT_NEAR(ml[1], sum, rel * sum);
    for (std::uint32_t d = 0; d < hd; ++d) {
        double want = 0, size = 0;
        for (std::int32_t t = begin; t < end; ++t) {
            if (!c.sees(token, t)) continue;
            const double w = p[static_cast<std::size_t>(t - begin)], x = w * pages.v(static_cast<std::uint32_t>(t), d);
            want += x;
            size += std::fabs(x) + w * (c.format == KvFormat::Q4 ? 30 * pages.v_scale(static_cast<std::uint32_t>(t)) : 0);
        }
        ASSERT_NEAR(out[d], want, rel * size) << "dim " << d;
    }
}

/// Every row of one span against double precision, those that see nothing against zeros.
void expect_near(const Case& c, const Pages& pages, const float* q, std::int32_t begin, std::int32_t end, const Partial& got) {
    for (std::uint32_t i = 0; i < c.n_tokens; ++i) {
        bool sees = false;
        for (std::int32_t t = begin; t < end; ++t) sees |= c.sees(i, t);
        for (std::uint32_t r = 0; r < c.n_rep; ++r) {
            const std::size_t row = std::size_t{i} * c.n_rep + r;
            const float *out = got.out.data() + row * c.head_dim, *ml = got.ml.data() + 2 * row;
            if (sees) {
                ASSERT_NO_FATAL_FAILURE(expect_row_near(c, pages, i, q + row * c.head_dim, begin, end, out, ml));
            } else {
                ASSERT_EQ(ml[1], 0.0f);
                for (std::uint32_t d = 0; d < c.head_dim; ++d) ASSERT_EQ(out[d], 0.0f);
            }
        }
    }
}

class AttentionQuantRun : public AttentionQuant {
protected:
    void check(const Case& c) {
        SCOPED_TRACE(testing::Message() << (c.format == KvFormat::Q4 ? "Q4" : "Q8") << " head " << c.head_dim << " ctx " << c.n_ctx << " tokens "
                                        << c.n_tokens << " rep " << c.n_rep << " window " << c.window << " cap " << c.softcap << " first " << c.first << " masked " << c.masked);
        const Cache& cache = shared([&] { return Cache(c.format, c.head_dim, c.n_ctx, scalar_table(), rng, 1); });
        // Positions that nobody sees are all ones: in F16 a NaN.
        const std::int64_t unseen = std::max<std::int64_t>(c.first, c.window ? std::int64_t{c.n_ctx} - c.window + 1 : 0), dead = unseen / kTokens * kTokens;
        for (std::uint32_t t = 0; t < dead; t += kTokens)
            std::memset(const_cast<std::byte*>(cache.quant.page(t)), 0xff, cache.quant.view.page_stride);
        const Guarded<float>& q = shared([&] { return Guarded<float>(random_floats(std::size_t{c.n_tokens} * c.n_rep * c.head_dim, 0.5f, rng)); });
        for (std::uint32_t b = 0; b < c.n_ctx; b += kAttnSpan) {
            const auto begin = static_cast<std::int32_t>(b), end = static_cast<std::int32_t>(std::min(c.n_ctx, b + kAttnSpan));
            // The scalar table is near the reference, and the others have its bits.
            const Partial& want = shared([&] {
                Partial out = run_span(scalar_table(), c, cache.quant, q.data(), begin, end, 0, c.n_tokens);
                expect_near(c, cache.quant, q.data(), begin, end, out);
                return out;
            });
            if (HasFatalFailure()) return;
            const Partial got = run_span(table(), c, cache.quant, q.data(), begin, end, 0, c.n_tokens);
            ASSERT_EQ(first_difference(got.out.data(), want.out.data(), want.out.size()), want.out.size()) << "differs from the scalar table";
            ASSERT_EQ(first_difference(got.ml.data(), want.ml.data(), want.ml.size()), want.ml.size());
            for (std::uint32_t i = 0; i < c.n_tokens; ++i) {
                const Partial alone = run_span(table(), c, cache.quant, q.data(), begin, end, i, 1);
                const std::size_t n = alone.out.size();
                ASSERT_EQ(first_difference(alone.out.data(), got.out.data() + i * n, n), n) << "token " << i << " depends on its company";
            }
        }
    }
};
INSTANTIATE_TEST_SUITE_P(Tables, AttentionQuantRun, testing::ValuesIn(runnable_tables()), table_name);

TEST_P(AttentionQuantRun, EveryHeadSize) {
    for (const KvFormat f : kFormats)
        for (const std::uint32_t hd : kHeads) check({f, hd, 96, 5, 3});
}

TEST_P(AttentionQuantRun, EveryRowCountAndLength) {
    for (const KvFormat f : kFormats) {
        for (const std::uint32_t rows : {1u, 2u, 3u, 5u, 6u, 7u, 11u, 12u, 13u, 25u, 64u}) check({f, 64, 64, rows, 1});
        for (const std::uint32_t rep : {2u, 4u, 7u, 64u}) check({f, 48, 64, kAttnMaxRows / rep, rep});
        for (const std::uint32_t n : {32u, 224u, 256u, 288u, 544u}) check({f, 64, n, 3, 3});
    }
}

TEST_P(AttentionQuantRun, WindowAndSoftcap) {
    for (const KvFormat f : kFormats)
        for (const std::int32_t window : {2, 20, 33, 40, 300})
            for (const float cap : {0.0f, 2.0f}) check({f, 80, 320, 11, 2, window, cap});
}

TEST_P(AttentionQuantRun, FirstPositionAndMask) {
    for (const KvFormat f : kFormats) {
        for (const std::int32_t first : {1, 16, 17, 31, 32, 100, 300}) check({.format = f, .head_dim = 64, .n_ctx = 320, .n_tokens = 7, .n_rep = 3, .first = first});
        for (const std::uint32_t masked : {1u, 16u, 33u, 64u})
            check({.format = f, .head_dim = 40, .n_ctx = 288, .n_tokens = 9, .n_rep = 2, .window = 200, .softcap = 2, .first = 16, .masked = masked});
    }
}

}  // namespace
}  // namespace quern::kernels::test
