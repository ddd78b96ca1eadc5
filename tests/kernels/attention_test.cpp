// SPDX-License-Identifier: Apache-2.0
// Attention, its merge and its cache against softmax in double precision over the values that the cache really holds.
#include <algorithm>
#include <limits>
#include <numeric>

#include "tests/kernels/ops_support.h"

namespace quern::kernels::test {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

/// One KV head in pages whose ids are shuffled, with another head's room before it. Starts as all NaN.
struct Cache {
    KvFormat format;
    std::size_t bytes, v_pitch;
    Guarded<std::uint32_t> pages;
    Guarded<std::byte> storage;
    KvHeadView view{};

    static std::size_t page_bytes(std::size_t b, std::uint32_t hd, std::uint32_t page_tokens) {
        return (hd + (hd + 15) / 16 * 16) * page_tokens * b + 64;
    }
    Cache(KvFormat f, std::uint32_t hd, std::uint32_t page_tokens, std::uint32_t n_ctx, std::mt19937& rng)
        : format(f),
          bytes(f == KvFormat::F16 ? 2 : 4),
          v_pitch((hd + 15) / 16 * 16),
          pages((n_ctx + page_tokens - 1) / page_tokens),
          storage(pages.size() * page_bytes(bytes, hd, page_tokens)) {
        std::iota(pages.data(), pages.data() + pages.size(), 0u);
        std::shuffle(pages.data(), pages.data() + pages.size(), rng);
        std::memset(storage.data(), 0xff, storage.size());
        const std::size_t k_bytes = std::size_t{hd} * page_tokens * bytes;
        view = {storage.data(), pages.data(), page_bytes(bytes, hd, page_tokens), 64, 64 + k_bytes, page_tokens, hd};
    }
    std::byte* k_at(std::uint32_t t, std::uint32_t d) const {
        const std::uint32_t slot = t % view.page_tokens;
        return page(t) + view.k_offset + ((slot / 16 * view.head_dim + d) * 16 + slot % 16) * bytes;
    }
    std::byte* v_at(std::uint32_t t, std::uint32_t d) const {
        return page(t) + view.v_offset + (t % view.page_tokens * v_pitch + d) * bytes;
    }
    double read(const std::byte* p) const {
        if (format == KvFormat::F16) {
            std::uint16_t h;
            std::memcpy(&h, p, 2);
            return decode_f16(h);
        }
        float f;
        std::memcpy(&f, p, 4);
        return f;
    }
    double k(std::uint32_t t, std::uint32_t d) const { return read(k_at(t, d)); }
    double v(std::uint32_t t, std::uint32_t d) const { return read(v_at(t, d)); }
    void poison(std::uint32_t t) const {
        for (std::uint32_t d = 0; d < view.head_dim; ++d) std::memset(k_at(t, d), 0xff, bytes);
        for (std::uint32_t d = 0; d < v_pitch; ++d) std::memset(v_at(t, d), 0xff, bytes);
    }
    void store(const KernelTable& t, const std::vector<float>& k, const std::vector<float>& v, std::int32_t pos0,
               std::uint32_t n) const {
        const Guarded<float> gk(k), gv(v);
        t.kv_store[static_cast<int>(format)]({view, gk.data(), gv.data(), view.head_dim, view.head_dim, n, pos0});
    }

private:
    std::byte* page(std::uint32_t t) const { return storage.data() + pages[t / view.page_tokens] * view.page_stride; }
};

struct Case {
    KvFormat format = KvFormat::F16;
    std::uint32_t head_dim = 64, page_tokens = 16, n_ctx = 200, n_tokens = 1, n_rep = 1;
    std::int32_t window = 0;
    float softcap = 0, spread = 1;
    std::int32_t first = 0;
    std::uint32_t masked = 0;   // of the newest positions, at most 64, a random mask says which are seen
};
std::ostream& operator<<(std::ostream& o, const Case& c) {
    return o << (c.format == KvFormat::F16 ? "F16" : "F32") << " head " << c.head_dim << " page " << c.page_tokens
             << " ctx " << c.n_ctx << " tokens " << c.n_tokens << " rep " << c.n_rep << " window " << c.window
             << " cap " << c.softcap << " spread " << c.spread << " first " << c.first << " masked " << c.masked;
}

/// The last n_tokens of n_ctx positions ask; everything they do not see is NaN.
struct Scene {
    Case c;
    Cache cache;
    Guarded<float> q;
    std::int32_t pos0;
    Guarded<std::uint64_t> mask;       // [n_tokens], or nothing

    Scene(const Case& cc, const KernelTable& t, std::mt19937& rng)
        : c(cc),
          cache(c.format, c.head_dim, c.page_tokens, c.n_ctx + 40, rng),
          q(random_floats(std::size_t{c.n_tokens} * c.n_rep * c.head_dim, c.spread, rng)),
          pos0(static_cast<std::int32_t>(c.n_ctx - c.n_tokens)),
          mask(c.masked ? c.n_tokens : 0) {
        cache.store(t, random_floats(std::size_t{c.n_ctx} * c.head_dim, 1.0f, rng),
                    random_floats(std::size_t{c.n_ctx} * c.head_dim, 1.0f, rng), 0, c.n_ctx);
        std::uint64_t seen = 0;   // by any token
        for (std::uint32_t i = 0; i < mask.size(); ++i) {
            mask[i] = std::uint64_t{rng()} << 32 | rng();
            if (i % 4 == 1) mask[i] |= 0xffff;   // runs
            mask[i] &= ~std::uint64_t{0x2020};   // and what nobody sees
            seen |= mask[i];
        }
        for (std::int32_t p = 0; p < static_cast<std::int32_t>(c.n_ctx); ++p) {
            const bool hidden = c.masked && p >= mask_from() && !(seen >> (p - mask_from()) & 1);
            if ((c.window && p <= pos0 - c.window) || p < c.first || hidden) cache.poison(static_cast<std::uint32_t>(p));
        }
    }
    std::int32_t mask_from() const { return static_cast<std::int32_t>(c.n_ctx - c.masked); }
    bool sees(std::uint32_t token, std::int32_t p) const {
        const std::int32_t pos = pos0 + static_cast<std::int32_t>(token);
        if (p > pos || p < c.first || (c.window && p <= pos - c.window)) return false;
        return mask.size() == 0 || p < mask_from() || (mask[token] >> (p - mask_from()) & 1);
    }
    float scale() const { return 1.0f / std::sqrt(static_cast<float>(c.head_dim)); }
    std::uint32_t rows() const { return c.n_tokens * c.n_rep; }
};

struct Partial {
    std::vector<float> out, ml;
};

/// Tokens [i0, i0 + n) of the scene, heads [r0, r0 + n_rep), over one span.
Partial run_span(const KernelTable& t, const Scene& s, std::int32_t begin, std::int32_t end, std::uint32_t i0,
                 std::uint32_t n, std::uint32_t r0, std::uint32_t n_rep) {
    const std::uint32_t hd = s.c.head_dim;
    const Guarded<float> out(std::vector<float>(std::size_t{n} * n_rep * hd, 777.0f)), ml(2 * n * n_rep);
    const Guarded<std::byte> scratch(kAttnScratch);
    std::memset(scratch.data(), 0xff, kAttnScratch);
    AttnArgs a{};
    a.kv = s.cache.view;
    a.begin = begin;
    a.end = end;
    a.q = s.q.data() + (std::size_t{i0} * s.c.n_rep + r0) * hd;
    a.q_stride = std::size_t{s.c.n_rep} * hd;
    a.n_tokens = n;
    a.n_rep = n_rep;
    a.pos0 = s.pos0 + static_cast<std::int32_t>(i0);
    a.window = s.c.window;
    a.scale = s.scale();
    a.softcap = s.c.softcap;
    a.first = s.c.first;
    a.mask = s.mask.size() == 0 ? nullptr : s.mask.data() + i0;
    a.mask_from = s.mask_from();
    a.out = out.data();
    a.out_stride = hd;
    a.ml = ml.data();
    a.scratch = scratch.data();
    t.attention[static_cast<int>(s.c.format)](a);
    return {{out.data(), out.data() + out.size()}, {ml.data(), ml.data() + ml.size()}};
}

/// All spans, merged and divided.
std::vector<float> run_all(const KernelTable& t, const Scene& s, std::uint32_t i0, std::uint32_t n, std::uint32_t r0,
                           std::uint32_t n_rep) {
    const std::uint32_t hd = s.c.head_dim, rows = n * n_rep;
    const auto end = s.pos0 + static_cast<std::int32_t>(i0 + n);
    Partial sum{std::vector<float>(std::size_t{rows} * hd, std::nanf("")), {}};  // empty: what lies there is not read
    for (std::uint32_t r = 0; r < rows; ++r) sum.ml.insert(sum.ml.end(), {-kInf, 0.0f});
    for (std::int32_t b = 0; b < end; b += static_cast<std::int32_t>(kAttnSpan)) {
        const Partial p = run_span(t, s, b, std::min(end, b + static_cast<std::int32_t>(kAttnSpan)), i0, n, r0, n_rep);
        t.attn_merge(sum.out.data(), sum.ml.data(), p.out.data(), p.ml.data(), rows, hd, hd);
    }
    const Guarded<float> out(sum.out.size());
    t.attn_finish(sum.out.data(), sum.ml.data(), rows, hd, hd, out.data(), hd, nullptr);
    return {out.data(), out.data() + out.size()};
}

/// The values that one head's cache holds, [n_ctx][head_dim], decoded once: every row reads all of them.
std::vector<double> held(const Scene& s, double (Cache::*read)(std::uint32_t, std::uint32_t) const) {
    std::vector<double> out;
    out.reserve(std::size_t{s.c.n_ctx} * s.c.head_dim);
    for (std::uint32_t t = 0; t < s.c.n_ctx; ++t)
        for (std::uint32_t d = 0; d < s.c.head_dim; ++d) out.push_back((s.cache.*read)(t, d));
    return out;
}

void expect_near_reference(const Scene& s, const std::vector<float>& got) {
    const Case& c = s.c;
    const std::size_t hd = c.head_dim;
    const std::vector<double> keys = held(s, &Cache::k), values = held(s, &Cache::v);
    std::vector<double> p(c.n_ctx), want(hd), size(hd);
    std::vector<std::size_t> seen;
    for (std::uint32_t row = 0; row < s.rows(); ++row) {
        const float* q = s.q.data() + row * hd;
        const std::uint32_t token = row / c.n_rep;
        seen.clear();
        double max = -INFINITY, score_error = 0;
        for (std::int32_t at = 0; at <= s.pos0 + static_cast<std::int32_t>(token); ++at) {
            if (!s.sees(token, at)) continue;
            const auto t = static_cast<std::size_t>(at);
            seen.push_back(t);
            const double* key = keys.data() + t * hd;
            double dot = 0, dot_size = 0;
            for (std::size_t d = 0; d < hd; ++d) {
                const double x = q[d] * key[d];
                dot += x;
                dot_size += std::fabs(x);
            }
            double score = dot * s.scale();
            // A chain of head_dim roundings and the scale's; the soft-cap (slope at most 1) adds a division, 3 ulp and
            // a product.
            double error = (c.head_dim + 1) * kUlpHalf * dot_size * s.scale();
            if (c.softcap != 0) {
                score = c.softcap * std::tanh(score / c.softcap);
                error += 8 * kUlpHalf * std::fabs(score);
            }
            score_error = std::max(score_error, error + kUlpHalf * std::fabs(score));
            max = std::max(max, score);
            p[t] = score;
        }
        if (max == -INFINITY) max = 0;
        double sum = 0;
        for (const std::size_t t : seen) sum += p[t] = std::exp(p[t] - max);
        std::fill(want.begin(), want.end(), 0.0);
        std::fill(size.begin(), size.end(), 0.0);
        for (const std::size_t t : seen) {
            const double weight = p[t] / sum;
            const double* value = values.data() + t * hd;
            for (std::size_t d = 0; d < hd; ++d) {
                const double x = weight * value[d];
                want[d] += x;
                size[d] += std::fabs(x);
            }
        }
        // Each weight is off by the score's error, the maximum's, and the rounding of s - m (below 4 units of it);
        // the sum likewise; then exp, up to 256 + 16 roundings of either chain, a few a merged span.
        const double rel = 4 * score_error + (2 * (256 + 16) + 8.0 * c.n_ctx / kAttnSpan + 8) * kUlpHalf;
        const float* out = got.data() + row * hd;
        for (std::size_t d = 0; d < hd; ++d) {
            // Also for NaN; the macro only speaks, as thousands of calls of it take longer than the rest.
            if (!(std::fabs(out[d] - want[d]) <= rel * size[d])) {
                FAIL() << "row " << row << " dim " << d << ": " << out[d] << " for " << want[d] << " within " << rel * size[d];
            }
        }
    }
}

class Attention : public EveryTable {
protected:
    void check(const Case& c) {
        SCOPED_TRACE(testing::Message() << c);
        const Scene& s = shared([&] { return Scene(c, scalar_table(), rng); });
        // The scalar table is near the reference, and the others have its bits.
        const std::vector<float>& want = shared([&] {
            std::vector<float> out = run_all(scalar_table(), s, 0, c.n_tokens, 0, c.n_rep);
            expect_near_reference(s, out);
            return out;
        });
        if (is_scalar() || HasFatalFailure()) return;
        const std::vector<float> got = run_all(table(), s, 0, c.n_tokens, 0, c.n_rep);
        ASSERT_EQ(first_difference(got.data(), want.data(), got.size()), got.size()) << "differs from the scalar table";
    }
};
INSTANTIATE_TEST_SUITE_P(Tables, Attention, testing::ValuesIn(runnable_tables()), table_name);

TEST_P(Attention, EveryHeadSizeAndPage) {
    for (const KvFormat f : {KvFormat::F32, KvFormat::F16})
        for (const std::uint32_t hd : {8u, 32u, 64u, 80u, 96u, 100u, 128u, 256u, 320u})
            for (const std::uint32_t page : {16u, 32u, 64u})
                check({.format = f, .head_dim = hd, .page_tokens = page, .n_ctx = 75, .n_tokens = 5, .n_rep = 3});
}

TEST_P(Attention, EveryRowCount) {
    for (const KvFormat f : {KvFormat::F32, KvFormat::F16})
        for (std::uint32_t rows = 1; rows <= kAttnMaxRows; rows += rows >= 28 ? 9 : kEvery)
            check({.format = f, .head_dim = 64, .n_ctx = 70 + rows, .n_tokens = rows, .n_rep = 1});
    for (const std::uint32_t rep : {2u, 3u, 4u, 7u, 8u, 12u, 13u, 64u})
        check({.head_dim = 48, .n_ctx = 90, .n_tokens = kAttnMaxRows / rep, .n_rep = rep});
}

TEST_P(Attention, EveryContextLength) {
    for (std::uint32_t n = 1; n < 40; n += kEvery) check({.head_dim = 32, .n_ctx = n, .n_tokens = std::min(n, 9u), .n_rep = 2});
    for (const std::uint32_t n : {255u, 256u, 257u, 300u, 511u, 512u, 513u, 1100u}) {
        check({.n_ctx = n, .n_tokens = 20, .n_rep = 3});
        check({.page_tokens = 64, .n_ctx = n, .n_tokens = 1, .n_rep = 4});
    }
}

TEST_P(Attention, WindowAndSoftcap) {
    for (const std::int32_t window : {1, 2, 15, 16, 17, 100, 256, 300})
        for (const float cap : {0.0f, 2.0f, 50.0f}) {
            check({.n_ctx = 340, .n_tokens = 21, .n_rep = 3, .window = window, .softcap = cap});
            check({.format = KvFormat::F32,
                   .head_dim = 80,
                   .n_ctx = 280,
                   .n_tokens = 1,
                   .n_rep = 2,
                   .window = window,
                   .softcap = cap,
                   .spread = 5});
        }
}

TEST_P(Attention, FirstPosition) {
    for (const std::int32_t first : {1, 15, 16, 17, 100, 256, 290})
        for (const std::int32_t window : {0, 60}) check({.n_ctx = 340, .n_tokens = 21, .n_rep = 3, .window = window, .first = first});
}

TEST_P(Attention, Mask) {
    for (const KvFormat f : {KvFormat::F32, KvFormat::F16})
        for (const std::uint32_t masked : {1u, 7u, 16u, 21u, 40u, 64u})
            for (const std::uint32_t n_ctx : {64u, 250u, 256u, 300u}) {
                check({.format = f, .n_ctx = n_ctx, .n_tokens = 21, .n_rep = 3, .masked = masked});
                check({.format = f, .head_dim = 40, .n_ctx = n_ctx, .n_tokens = 1, .n_rep = 4, .masked = masked});
            }
    check({.n_ctx = 300, .n_tokens = 21, .n_rep = 3, .window = 30, .softcap = 3, .first = 16, .masked = 64});
}

TEST_P(Attention, LargeScores) {
    check({.n_ctx = 300, .n_tokens = 7, .n_rep = 2, .spread = 1e3f});  // some weights become exactly 1 and 0
    check({.format = KvFormat::F32, .n_ctx = 300, .n_tokens = 7, .n_rep = 2, .softcap = 30, .spread = 1e4f});
    check({.n_ctx = 300, .n_tokens = 7, .n_rep = 2, .spread = 0});  // all equal
}

TEST_P(Attention, ARowDoesNotDependOnItsCompany) {
    for (const std::int32_t window : {0, 50}) {
        const Case c{.head_dim = 80, .n_ctx = 560, .n_tokens = 21, .n_rep = 3, .window = window};
        const Scene s(c, scalar_table(), rng);
        const std::vector<float> all = run_all(table(), s, 0, c.n_tokens, 0, c.n_rep);
        for (std::uint32_t i = 0; i < c.n_tokens; ++i) {
            const std::vector<float> token = run_all(table(), s, i, 1, 0, c.n_rep);
            const float* from = all.data() + std::size_t{i} * c.n_rep * c.head_dim;
            ASSERT_EQ(first_difference(token.data(), from, token.size()), token.size()) << "token " << i;
            for (std::uint32_t r = 0; r < c.n_rep; ++r) {
                const std::vector<float> row = run_all(table(), s, i, 1, r, 1);
                ASSERT_EQ(first_difference(row.data(), from + r * c.head_dim, row.size()), row.size());
            }
        }
    }
}

TEST_P(Attention, ALaterTokensInfinityStaysLater) {
    const Case c{.format = KvFormat::F32, .head_dim = 64, .n_ctx = 30, .n_tokens = 12, .n_rep = 1};
    const Scene s(c, scalar_table(), rng);
    std::vector<float> k(64, 0.5f), v(64, kInf);
    s.cache.store(scalar_table(), k, v, 24, 1);  // seen by queries 6 .. 11
    const std::vector<float> got = run_all(table(), s, 0, c.n_tokens, 0, 1);
    for (std::uint32_t i = 0; i < c.n_tokens; ++i)
        for (std::uint32_t d = 0; d < 64; ++d) EXPECT_EQ(std::isfinite(got[i * 64 + d]), i < 6) << i << ' ' << d;
}

TEST_P(Attention, ARowThatSeesNothingIsEmpty) {
    const Case c{.head_dim = 40, .n_ctx = 300, .n_tokens = 30, .n_rep = 2, .window = 20};
    const Scene s(c, scalar_table(), rng);
    const Partial p = run_span(table(), s, 0, 256, 0, c.n_tokens, 0, c.n_rep);  // queries at 270 .. 299
    for (std::uint32_t r = 0; r < s.rows(); ++r) {
        const bool empty = 270 + static_cast<int>(r / 2) - 19 >= 256;
        EXPECT_EQ(p.ml[2 * r] == -kInf, empty) << r;
        EXPECT_EQ(p.ml[2 * r + 1] == 0.0f, empty) << r;
        for (std::uint32_t d = 0; d < 40 && empty; ++d) EXPECT_EQ(p.out[r * 40 + d], 0.0f);
    }
}

TEST_P(Attention, ScoresOfMinusInfinityGiveZeroAndNanStaysNan) {
    const Case c{.format = KvFormat::F32, .head_dim = 16, .n_ctx = 20};
    const Scene s(c, scalar_table(), rng);
    std::vector<float> k(20 * 16, -std::numeric_limits<float>::max()), v(20 * 16, 1.0f);
    for (int d = 0; d < 16; ++d) s.q[static_cast<std::size_t>(d)] = 1e9f;
    s.cache.store(scalar_table(), k, v, 0, 20);
    const Partial p = run_span(table(), s, 0, 20, 0, 1, 0, 1);
    EXPECT_EQ(p.ml[0], -kInf);
    EXPECT_EQ(p.ml[1], 0.0f);
    for (const float x : run_all(table(), s, 0, 1, 0, 1)) EXPECT_EQ(x, 0.0f);
    k[3] = std::nanf("");  // one dimension of position 0
    s.cache.store(scalar_table(), k, v, 0, 20);
    for (const float x : run_all(table(), s, 0, 1, 0, 1)) EXPECT_TRUE(std::isnan(x));
}

TEST_P(Attention, MergeAgreesWithTheDefinition) {
    for (const std::uint32_t hd : {8u, 16u, 40u, 128u}) {
        const std::uint32_t rows = 9;
        std::vector<float> a0 = random_floats(rows * hd, 1, rng), b0 = random_floats(rows * hd, 1, rng);
        std::vector<float> ml_a = random_floats(2 * rows, 3, rng), ml_b = random_floats(2 * rows, 3, rng);
        for (std::uint32_t r = 0; r < rows; ++r) {
            ml_a[2 * r + 1] = std::fabs(ml_a[2 * r + 1]) + 1;
            ml_b[2 * r + 1] = std::fabs(ml_b[2 * r + 1]) + 1;
        }
        ml_b[0] = -kInf, ml_b[1] = 0;  // row 0: b empty; row 1: a empty; row 2: both; row 3: far apart
        ml_a[2] = -kInf, ml_a[3] = 0;
        ml_a[4] = ml_b[4] = -kInf, ml_a[5] = ml_b[5] = 0;
        ml_a[6] = 1e4f, ml_b[6] = -1e4f;
        b0[0] = a0[hd] = kInf;  // empty: not read
        const Guarded<float> a(a0), b(b0), ma(ml_a), mb(ml_b);
        table().attn_merge(a.data(), ma.data(), b.data(), mb.data(), rows, hd, hd);
        const std::size_t n = hd;
        EXPECT_EQ(first_difference(a.data(), a0.data(), n), n);
        EXPECT_EQ(first_difference(a.data() + n, b0.data() + n, n), n);
        EXPECT_EQ(first_difference(a.data() + 3 * n, a0.data() + 3 * n, n), n);
        EXPECT_EQ(ma[4], -kInf);
        EXPECT_EQ(ma[5], 0.0f);
        for (std::uint32_t r = 4; r < rows; ++r) {
            const double m = std::max(ml_a[2 * r], ml_b[2 * r]);
            const double wa = std::exp(ml_a[2 * r] - m), wb = std::exp(ml_b[2 * r] - m);
            EXPECT_EQ(ma[2 * r], static_cast<float>(m));
            // m - m' rounds once (|m - m'| < 64 half-ulps), exp within 2, product and FMA.
            const double rel = (64 + 4) * kUlpHalf, l = ml_a[2 * r + 1] * wa + ml_b[2 * r + 1] * wb;
            EXPECT_NEAR(ma[2 * r + 1], l, rel * l);
            for (std::uint32_t d = 0; d < hd; ++d) {
                const double x = a0[r * hd + d] * wa, y = b0[r * hd + d] * wb;
                EXPECT_NEAR(a[r * hd + d], x + y, rel * (std::fabs(x) + std::fabs(y)));
            }
        }
        const Guarded<float> ref(a0), ref_ml(ml_a);
        scalar_table().attn_merge(ref.data(), ref_ml.data(), b.data(), mb.data(), rows, hd, hd);
        EXPECT_EQ(first_difference(a.data(), ref.data(), a.size()), a.size());
        EXPECT_EQ(first_difference(ma.data(), ref_ml.data(), ma.size()), ma.size());
    }
}

TEST_P(Attention, FinishDividesAndEmptyRowsAreZero) {
    for (const std::uint32_t hd : {8u, 16u, 100u}) {
        const Guarded<float> a(random_floats(2 * 128 + hd, 1, rng)), ml(std::vector<float>{0, 3, -kInf, 0, 1, 0.7f});
        const Guarded<float> out(std::vector<float>(2 * 112 + hd, 9.0f));
        table().attn_finish(a.data(), ml.data(), 3, hd, 128, out.data(), 112, nullptr);
        for (std::uint32_t r = 0; r < 3; ++r)
            for (std::uint32_t d = 0; d < (r < 2 ? 112 : hd); ++d)
                EXPECT_EQ(out[r * 112 + d], d >= hd ? 9.0f : r == 1 ? 0.0f : a[r * 128 + d] / ml[2 * r + 1]);
    }
}

// As if one more position had that score and a value of zeros.
TEST_P(Attention, SinksTakeTheirShareOfTheSoftmax) {
    for (const std::uint32_t hd : {8u, 64u, 100u}) {
        const std::uint32_t rows = 6;
        const Guarded<float> a(random_floats(rows * hd, 1, rng));
        const Guarded<float> ml(std::vector<float>{0, 3, -kInf, 0, 1, 0.7f, -2, 5, 4, 1.5f, 90, 1});
        const Guarded<float> sinks(std::vector<float>{0.5f, 1, -3, 40, -kInf, 0});
        const Guarded<float> out(a.size()), ref(a.size()), plain(a.size());
        table().attn_finish(a.data(), ml.data(), rows, hd, hd, out.data(), hd, sinks.data());
        scalar_table().attn_finish(a.data(), ml.data(), rows, hd, hd, ref.data(), hd, sinks.data());
        table().attn_finish(a.data(), ml.data(), rows, hd, hd, plain.data(), hd, nullptr);
        EXPECT_EQ(first_difference(out.data(), ref.data(), out.size()), out.size());
        for (std::uint32_t r = 0; r < rows; ++r)
            for (std::uint32_t d = 0; d < hd; ++d) {
                const double x = a[r * hd + d], l = ml[2 * r + 1];
                const double want = l == 0 ? 0 : x / (l + std::exp(double(sinks[r]) - ml[2 * r]));
                // Differences of scores below 64 round to half an ulp of 64, exp within 2, then a product, an FMA, a division.
                EXPECT_NEAR(out[r * hd + d], want, (64 + 8) * kUlpHalf * std::fabs(want)) << r;
                if (sinks[r] == -kInf) {
                    EXPECT_EQ(out[r * hd + d], plain[r * hd + d]);
                }
            }
    }
}

TEST_P(Attention, StoreRoundTrip) {
    for (const KvFormat f : {KvFormat::F32, KvFormat::F16})
        for (const std::uint32_t hd : {8u, 24u, 64u, 100u})
            for (const std::uint32_t page : {16u, 32u, 64u}) {
                SCOPED_TRACE(testing::Message() << "head " << hd << " page " << page);
                const Cache cache(f, hd, page, 150, rng);
                std::vector<std::byte> before(cache.storage.data(), cache.storage.data() + cache.storage.size());
                std::vector<float> k = random_floats(std::size_t{90} * hd, 1.0f, rng);
                std::vector<float> v = random_floats(k.size(), 1.0f, rng);
                const float special[] = {0.0f, -0.0f, 65504.0f, 1e-7f, 6e-8f, -3e-8f, 1.00048828125f, 1.00146484375f};
                std::copy(std::begin(special), std::end(special), k.begin());
                std::copy(std::begin(special), std::end(special), v.begin());
                cache.store(table(), k, v, 37, 90);
                for (std::uint32_t t = 0; t < 90; ++t) {
                    for (std::uint32_t d = 0; d < hd; ++d) {
                        // One rounding: to 11 bits, or to a multiple of 2^-24 below 2^-14.
                        const bool f16 = f == KvFormat::F16;
                        const double half_ulp = f16 ? 0x1p-11 : 0, least = f16 ? 0x1p-25 : 0;
                        const float x = k[t * hd + d], y = v[t * hd + d];
                        ASSERT_NEAR(cache.k(37 + t, d), x, std::max(half_ulp * std::fabs(x), least));
                        ASSERT_NEAR(cache.v(37 + t, d), y, std::max(half_ulp * std::fabs(y), least));
                    }
                    for (std::uint32_t d = hd; d < cache.v_pitch; ++d) ASSERT_EQ(cache.v(37 + t, d), 0.0);
                }
                if (f == KvFormat::F16) {  // ties go to even
                    EXPECT_EQ(cache.k(37, 6), 1.0);
                    EXPECT_EQ(cache.k(37, 7), 1.001953125);
                }
                for (std::uint32_t t = 37; t < 127; ++t) cache.poison(t);  // as before: nothing else was touched
                EXPECT_EQ(std::memcmp(before.data(), cache.storage.data(), before.size()), 0);
            }
}

}  // namespace
}  // namespace quern::kernels::test
