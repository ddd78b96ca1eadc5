// SPDX-License-Identifier: Apache-2.0
// Norm, rows, gated activations, the best of a row, and rotation with the store into pages, against double precision or the
// scalar table.
#include <cmath>
#include <limits>

#include "tests/vulkan/run_block.h"

namespace quern::vulkan::test {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();
constexpr std::uint32_t round4(std::uint32_t n) { return (n + 3) / 4 * 4; }

class OpsTest : public DeviceTest {};

/// Rows of n values, `gap` floats of canary behind each.
struct Rows {
    std::uint32_t n, stride;
    std::vector<float> x;
    Rows(std::uint32_t rows, std::uint32_t width, std::uint32_t seed, std::uint32_t gap = 4)
        : n(width), stride(round4(width) + gap), x(std::size_t{rows} * stride, kCanary) {
        const std::vector<float> g = gaussian(std::size_t{rows} * width, seed);
        for (std::uint32_t r = 0; r < rows; ++r) std::copy_n(g.begin() + r * width, width, x.begin() + r * stride);
    }
};

void expect_canaries(const std::vector<float>& x, std::uint32_t n, std::uint32_t stride) {
    for (std::size_t i = 0; i < x.size(); ++i) {
        if (i % stride >= n) {
            ASSERT_EQ(x[i], kCanary) << "at " << i;
        }
    }
}

TEST_F(OpsTest, NormOfEveryRemainder) {
    for (const std::uint32_t n : {1u, 2u, 3u, 4u, 5u, 7u, 64u, 255u, 576u, 1023u, 1025u, 4099u})
        for (const bool listed : {false, true}) {
            const std::vector<std::uint32_t> rows = listed ? std::vector<std::uint32_t>{3, 0, 4} : std::vector<std::uint32_t>{0, 1, 2, 3, 4};
            const auto n_rows = static_cast<std::uint32_t>(rows.size());
            const Rows x(5, n, n);
            const std::vector<float> w = gaussian(round4(n), n + 1);
            RunBlock run;
            run.header.outputs = run.add(rows);
            const std::uint32_t stride = round4(n) + 8;
            const Buffer r = upload(run.words()), from = upload(x.x), weight = upload(w),
                         to = upload(std::vector<float>(std::size_t{n_rows + 1} * stride, kCanary));
            const bool weighted = n % 2 == 1;
            const NormPush push{r.address(), from.address(), weighted ? weight.address() : 0, to.address(), listed ? kListOutputs : 0,
                                x.stride, stride, n, 1e-5f, 0};
            dispatch(kernel("rms_norm", {kNormConstants.begin(), kNormConstants.end()}), push, {n_rows});
            std::vector<float> got = download<float>(to, std::size_t{n_rows + 1} * stride);
            expect_canaries(std::vector<float>(got.end() - stride, got.end()), 0, stride);
            got.resize(std::size_t{n_rows} * stride);
            expect_canaries(got, n, stride);
            for (std::uint32_t i = 0; i < n_rows; ++i) {
                const float* a = x.x.data() + rows[i] * x.stride;
                double sum = 0;
                for (std::uint32_t k = 0; k < n; ++k) sum += double{a[k]} * a[k];
                const double inv = 1 / std::sqrt(sum / n + double{1e-5f});
                for (std::uint32_t k = 0; k < n; ++k) {
                    const double y = a[k] * inv * (weighted ? w[k] : 1);
                    // At most 48 additions of positive terms follow each other, halved by the root; division and root are within 2.5 ulp.
                    ASSERT_NEAR(got[i * stride + k], y, 32 * 0x1p-24 * std::abs(y)) << n << ": " << i << ", " << k;
                }
            }
        }
}

TEST_F(OpsTest, GatherCopiesListedRows) {
    for (const std::uint32_t n : {1u, 3u, 4u, 6u, 512u, 513u, 1030u}) {
        const Rows x(7, n, n);
        const std::vector<std::uint32_t> rows = {6, 2, 2, 0};
        RunBlock run;
        run.header.outputs = run.add(rows);
        const std::uint32_t stride = round4(n) + 4;
        const Buffer r = upload(run.words()), from = upload(x.x), to = upload(std::vector<float>(4 * stride, kCanary));
        dispatch(kernel("gather", {kGatherConstants.begin(), kGatherConstants.end()}),
                 GatherPush{r.address(), from.address(), to.address(), kListOutputs, x.stride, stride, n}, {4, row_pieces(n)});
        const std::vector<float> got = download<float>(to, 4 * stride);
        expect_canaries(got, n, stride);
        for (std::uint32_t i = 0; i < 4; ++i)
            ASSERT_EQ(std::memcmp(got.data() + i * stride, x.x.data() + rows[i] * x.stride, n * sizeof(float)), 0) << n;
    }
}

double gated(PairOp op, double a, double b) {
    if (op == PairOp::add) return a + b;
    const double x = op == PairOp::swiglu ? a : 2 * std::sqrt(2 / M_PI) * (a + 0.044715 * a * a * a);
    return a / (1 + std::exp(-x)) * b;
}

TEST_F(OpsTest, PairsOfEveryRemainder) {
    for (const PairOp op : {PairOp::add, PairOp::swiglu, PairOp::geglu})
        for (const std::uint32_t n : {1u, 2u, 7u, 512u, 515u, 1537u}) {
            Rows a(3, n, 10 + n, 4), b(3, n, 20 + n, 8);
            for (std::uint32_t k = 0; k < n; ++k) a.x[k] = -60.0f + 120.0f * static_cast<float>(k) / static_cast<float>(n);
            const std::uint32_t stride = round4(n) + 4;
            const Buffer da = upload(a.x), db = upload(b.x), to = upload(std::vector<float>(3 * stride, kCanary));
            const auto constants = pair_constants(op);
            dispatch(kernel("pair", {constants.begin(), constants.end()}),
                     PairPush{da.address(), db.address(), to.address(), a.stride, b.stride, stride, n}, {3, row_pieces(n)});
            const std::vector<float> got = download<float>(to, 3 * stride);
            expect_canaries(got, n, stride);
            for (std::uint32_t i = 0; i < 3; ++i)
                for (std::uint32_t k = 0; k < n; ++k) {
                    const float x = a.x[i * a.stride + k], y = b.x[i * b.stride + k];
                    const double ref = gated(op, x, y);
                    if (op == PairOp::add) {
                        ASSERT_EQ(got[i * stride + k], x + y);
                        continue;
                    }
                    // exp's argument u has three roundings, each worth |u| ulp of the result; below e^-87 nothing is left.
                    const double u = op == PairOp::swiglu ? x : 1.6 * (std::abs(x) + 0.045 * std::abs(double{x} * x * x));
                    ASSERT_NEAR(got[i * stride + k], ref, (8 + 3 * std::abs(u)) * 0x1p-24 * std::abs(ref) + 1e-35) << n << ": " << x;
                }
        }
}

/// What the "top" kernel gives for rows of values, part by part until one is left.
class TopTest : public DeviceTest {
protected:
    struct Best { std::uint32_t index; float value; };
    static std::vector<Best> top(const std::vector<float>& x, std::uint32_t rows, std::uint32_t stride, std::uint32_t n, std::uint32_t k) {
        const std::uint32_t most = top_parts(n) * k;
        const std::vector<Best> none(std::size_t{rows} * most + 16, Best{77, kCanary});
        const Buffer in = upload(x), a = upload(none), b = upload(none);
        const Buffer* from = &in;
        const Buffer* to = &a;
        TopPush push{in.address(), a.address(), n, stride, k, most};
        for (bool pairs = false;; pairs = true) {
            const auto constants = top_constants(pairs);
            const std::uint32_t parts = top_parts(push.n);
            dispatch(kernel("top", {constants.begin(), constants.end()}), push, {parts, rows});
            if (parts == 1) break;
            from = to;
            to = to == &a ? &b : &a;
            push = {from->address(), to->address(), parts * k, most, k, most};
        }
        const std::vector<Best> got = download<Best>(*to, none.size());
        for (std::size_t i = std::size_t{rows} * most; i < got.size(); ++i) EXPECT_EQ(got[i].index, 77u);
        std::vector<Best> out;
        for (std::uint32_t r = 0; r < rows; ++r) out.insert(out.end(), got.begin() + r * most, got.begin() + r * most + k);
        return out;
    }
    static void check(const std::vector<float>& x, std::uint32_t rows, std::uint32_t stride, std::uint32_t n, std::uint32_t k) {
        const std::vector<Best> got = top(x, rows, stride, n, k);
        for (std::uint32_t r = 0; r < rows; ++r) {
            const float* v = x.data() + r * stride;
            std::vector<std::uint32_t> order;
            for (std::uint32_t i = 0; i < n; ++i)
                if (!std::isnan(v[i])) order.push_back(i);
            std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return v[a] > v[b]; });
            for (std::uint32_t i = 0; i < k; ++i) {
                const Best& best = got[r * k + i];
                if (i >= order.size()) {
                    ASSERT_EQ(best.index, k == 1 ? 0u : 0xffffffffu);
                    continue;
                }
                ASSERT_EQ(best.index, order[i]) << "row " << r << ", n " << n << ", k " << k << ", place " << i;
                ASSERT_EQ(best.value, v[order[i]]);
            }
            if (k == 1) {
                ASSERT_EQ(got[r].index, scalar().argmax(v, n));
            }
        }
    }
};

TEST_F(TopTest, BestOfEveryLength) {
    for (std::uint32_t n = 1; n <= 40; ++n)
        for (const std::uint32_t k : {1u, 7u}) check(gaussian(n, n), 1, n, n, k);
    for (const std::uint32_t n : {2047u, 2048u, 2049u, 5000u, 40001u})
        for (const std::uint32_t k : {1u, 40u, 256u}) check(gaussian(3 * (n + 5), n), 3, n + 5, n, k);
}

TEST_F(TopTest, TiesNanAndInfinities) {
    std::vector<float> x = gaussian(4500, 1);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(static_cast<int>(x[i] * 2)) * (i % 3 ? 1.0f : -1.0f);   // many equal, both zeros
    for (std::size_t i = 0; i < x.size(); i += 7) x[i] = i % 2 ? kNan : -kNan;
    check(x, 1, 4500, 4500, 1);
    check(x, 1, 4500, 4500, 200);
    std::vector<float> low = x;   // zeros of both signs are the best
    for (float& f : low) f = f > 0 ? -f : f;
    check(low, 1, 4500, 4500, 200);
    x[4444] = x[3333] = kInf;
    check(x, 1, 4500, 4500, 1);
    check(std::vector<float>(3000, kNan), 1, 3000, 3000, 1);
    check(std::vector<float>(3000, kNan), 1, 3000, 3000, 3);
    std::vector<float> least(3000, kNan);
    least[2999] = least[2500] = -kInf;
    check(least, 1, 3000, 3000, 1);
    check(least, 1, 3000, 3000, 3);
}

// --- Rotation and store ---

struct RopeCase {
    std::uint32_t head_dim, n_rot, n_head, n_head_kv;
    bool neox;
    KvFormat format;
    std::uint32_t page_tokens;
    bool norm = false;
};

class RopeStoreTest : public DeviceTest {
protected:
    struct Memory { Pages pages, exact; };
    /// Runs chunks through both and compares queries and every byte of the pages.
    static void check(const RopeCase& c, std::vector<ChunkSpec> chunks, std::uint32_t n_pages, bool wild) {
        RunBlock run;
        add_chunks(run, chunks);
        const std::uint32_t n = run.header.n_tokens;
        const std::uint32_t q_stride = c.n_head * c.head_dim + 4, kv_stride = c.n_head_kv * c.head_dim + 8;
        std::vector<float> q = gaussian(std::size_t{n} * q_stride, 1), k = gaussian(std::size_t{n} * kv_stride, 2), v = gaussian(std::size_t{n} * kv_stride, 3);
        if (wild) make_wild(v);
        if (wild && c.n_rot == 0) make_wild(k);
        std::vector<float> cs(std::size_t{n} * c.n_rot);
        for (std::size_t i = 0; i < cs.size(); i += 2) {
            cs[i] = static_cast<float>(std::cos(0.37 * static_cast<double>(i)));
            cs[i + 1] = static_cast<float>(std::sin(0.37 * static_cast<double>(i)));
        }
        run.header.n_rot = c.n_rot;
        run.header.rope = run.add(cs);
        const std::vector<float> wq = gaussian(c.head_dim, 5), wk = gaussian(c.head_dim, 6);
        Memory m{{c.format, c.head_dim, c.n_head_kv, c.page_tokens, n_pages}, {c.format, c.head_dim, c.n_head_kv, c.page_tokens, n_pages}};
        const Buffer r = upload(run.words()), dq = upload(q), dk = upload(k), dv = upload(v), dwq = upload(wq), dwk = upload(wk),
                     pages = upload(m.pages.bytes), exact = upload(m.exact.bytes);
        const RopeStorePush push{r.address(), dq.address(), dk.address(), dv.address(), c.norm ? dwq.address() : 0, c.norm ? dwk.address() : 0,
                                 pages.address(), exact.address(), 0, q_stride, kv_stride, kv_stride, c.n_head, c.n_head_kv, 1e-6f};
        const auto constants = rope_store_constants(c.head_dim, c.n_rot, c.neox, c.format, c.page_tokens);
        dispatch(kernel("rope_store", {constants.begin(), constants.end()}), push, {n, c.n_head + c.n_head_kv});
        const std::vector<float> unchanged = download<float>(dk, k.size());
        EXPECT_EQ(std::memcmp(unchanged.data(), k.data(), k.size() * sizeof(float)), 0);
        on_cpu(c, chunks, m, q, k, v, cs, wq, wk, q_stride, kv_stride);
        const std::vector<float> got_q = download<float>(dq, q.size());
        const auto got_pages = download<std::byte>(pages, m.pages.bytes.size()), got_exact = download<std::byte>(exact, m.exact.bytes.size());
        if (c.norm) {   // another order of sums
            for (std::size_t i = 0; i < q.size(); ++i) ASSERT_NEAR(got_q[i], q[i], 1e-5) << i;
            compare_norm(c, got_pages, m.pages.bytes);
            return;
        }
        ASSERT_EQ(std::memcmp(got_q.data(), q.data(), q.size() * sizeof(float)), 0);
        for (std::size_t i = 0; i < got_pages.size(); ++i) ASSERT_EQ(got_pages[i], m.pages.bytes[i]) << "byte " << i;
        for (std::size_t i = 0; i < got_exact.size(); ++i) ASSERT_EQ(got_exact[i], m.exact.bytes[i]) << "byte " << i;
    }

private:
    /// Any bits but NaN's: subnormal numbers, overflow, ties of rounding.
    static void make_wild(std::vector<float>& x) {
        std::mt19937 rng(9);
        for (float& f : x) {
            std::uint32_t u = static_cast<std::uint32_t>(rng());
            if (rng() % 2) u = (u & 0x80000000u) | ((101 + rng() % 45) << 23) | (rng() & 0x7ff000u) | (rng() % 3 ? 0 : rng() & 0xfffu);
            std::memcpy(&f, &u, 4);
            if (std::isnan(f)) f = 65520.0f;
        }
    }
    static void compare_norm(const RopeCase& c, const std::vector<std::byte>& got, const std::vector<std::byte>& want) {
        ASSERT_EQ(c.format, KvFormat::F32);
        for (std::size_t i = 0; i < got.size(); i += 4) {
            float a, b;
            std::memcpy(&a, got.data() + i, 4);
            std::memcpy(&b, want.data() + i, 4);
            ASSERT_EQ(std::isnan(a), std::isnan(b)) << i;
            if (!std::isnan(b)) {
                ASSERT_NEAR(a, b, 1e-5) << i;
            }
        }
    }
    static void on_cpu(const RopeCase& c, const std::vector<ChunkSpec>& chunks, Memory& m, std::vector<float>& q, std::vector<float> k,
                       const std::vector<float>& v, const std::vector<float>& cs, const std::vector<float>& wq, const std::vector<float>& wk,
                       std::uint32_t q_stride, std::uint32_t kv_stride) {
        const auto& t = scalar();
        const auto rotate = c.neox ? t.rope_neox : t.rope_norm;
        for (const ChunkSpec& ch : chunks)
            for (std::uint32_t i = 0; i < ch.n_tokens; ++i) {
                const std::size_t token = ch.first + i;
                float *xq = q.data() + token * q_stride, *xk = k.data() + token * kv_stride;
                for (std::uint32_t h = 0; c.norm && h < c.n_head; ++h) t.rms_norm(xq + h * c.head_dim, wq.data(), 1e-6f, c.head_dim, xq + h * c.head_dim);
                for (std::uint32_t h = 0; c.norm && h < c.n_head_kv; ++h) t.rms_norm(xk + h * c.head_dim, wk.data(), 1e-6f, c.head_dim, xk + h * c.head_dim);
                rotate(xq, c.n_head, c.head_dim, c.n_rot, cs.data() + token * c.n_rot);
                rotate(xk, c.n_head_kv, c.head_dim, c.n_rot, cs.data() + token * c.n_rot);
                const std::int32_t pos = ch.pos0 + static_cast<std::int32_t>(i);
                for (std::uint32_t h = 0; h < c.n_head_kv; ++h) {
                    Pages& to = ch.source == kSourcePages ? m.pages : m.exact;
                    kernels::KvStoreArgs a{to.view(h, ch.table.data()), xk + h * c.head_dim, v.data() + token * kv_stride + h * c.head_dim,
                                           kv_stride, kv_stride, 1, pos - ch.origin};
                    t.kv_store[static_cast<int>(c.format)](a);
                    if (ch.sink.empty() || pos >= 16) continue;
                    a.kv = m.exact.view(h, ch.sink.data());
                    a.pos0 = pos;
                    t.kv_store[static_cast<int>(c.format)](a);
                }
            }
    }
};

TEST_F(RopeStoreTest, EveryNumberOfTokensAtOddAndEvenPositions) {
    const RopeCase c{64, 64, 3, 2, false, KvFormat::F16, 16};
    for (std::uint32_t n = 1; n <= 40; n += n < 5 ? 1 : 7)
        for (const std::int32_t pos0 : {0, 1, 14, 15, 17})
            check(c, {{pos0, n, shuffled(5, n)}}, 5, false);
}

TEST_F(RopeStoreTest, ShapesFormatsAndPairs) {
    for (const KvFormat f : {KvFormat::F16, KvFormat::F32})
        for (const bool neox : {false, true}) {
            check({8, 8, 1, 1, neox, f, 16}, {{3, 6, {1, 0}}}, 2, false);
            check({40, 20, 2, 2, neox, f, 32}, {{30, 5, {1, 0}}}, 2, false);
            check({96, 96, 4, 1, neox, f, 16}, {{0, 3, {0}}}, 1, false);
            check({256, 64, 2, 1, neox, f, 48}, {{47, 2, {1, 0}}}, 2, false);
            check({64, 0, 1, 1, neox, f, 16}, {{5, 9, {1, 0}}}, 2, true);
        }
}

TEST_F(RopeStoreTest, HalvesAreRoundedAsOnTheCpu) {
    for (std::uint32_t i = 0; i < 6; ++i) check({128, 0, 1, 8, false, KvFormat::F16, 16}, {{static_cast<std::int32_t>(i), 40, {2, 0, 1}}}, 3, true);
}

TEST_F(RopeStoreTest, SeveralChunksTreesAndTiers) {
    const RopeCase c{32, 32, 2, 2, true, KvFormat::F16, 16};
    ChunkSpec ring{35, 20, {7, 5}, 32, kSourceExact}, first{9, 12, {2, 3}, 0, kSourceExact};
    first.sink = {4};
    ChunkSpec last{15, 2, {6, 1}, 0, kSourceExact};   // the last of the first positions, and the next one
    last.sink = {0};
    ChunkSpec tree{3, 5, {1}, 0, kSourcePages};
    tree.masks = {1, 3, 5, 9, 17};
    check(c, {{0, 1, {0}}, ring, {15, 2, {4, 5}}, first, last, tree}, 8, false);
}

TEST_F(RopeStoreTest, HeadsAreNormedFirst) {
    for (const bool neox : {false, true}) check({80, 80, 3, 2, neox, KvFormat::F32, 16, true}, {{6, 13, {1, 0}}}, 2, false);
}

TEST_F(OpsTest, CopiesWholePagesBetweenMemories) {
    const std::uint32_t page_bytes = 16 * 37;
    std::vector<std::uint32_t> words(5 * page_bytes / 4);
    std::iota(words.begin(), words.end(), 0u);
    const Buffer pages = upload(words), exact = upload(std::vector<std::uint32_t>(words.size(), 1u << 30)), staging = upload(std::vector<std::uint32_t>(words.size(), 1u << 31));
    RunBlock run;
    run.header.keep = run.add(std::vector<PageCopy>{{kSourcePages, 3, kSourceExact, 1}, {kSourcePages, 0, kSourceStaging, 4}, {kSourcePages, 2, kSourcePages, 4}});
    const Buffer r = upload(run.words());
    dispatch(kernel("copy_pages", {kCopyPagesConstants.begin(), kCopyPagesConstants.end()}),
             CopyPagesPush{r.address(), pages.address(), exact.address(), staging.address(), kListKeep, page_bytes}, {3, 2});
    const std::uint32_t n = page_bytes / 4;
    std::vector<std::uint32_t> in_pages = words, in_exact(words.size(), 1u << 30), in_staging(words.size(), 1u << 31);
    std::copy_n(words.begin() + 2 * n, n, in_pages.begin() + 4 * n);
    std::copy_n(words.begin() + 3 * n, n, in_exact.begin() + n);
    std::copy_n(words.begin(), n, in_staging.begin() + 4 * n);
    EXPECT_EQ(download<std::uint32_t>(pages, words.size()), in_pages);
    EXPECT_EQ(download<std::uint32_t>(exact, words.size()), in_exact);
    EXPECT_EQ(download<std::uint32_t>(staging, words.size()), in_staging);
}

}  // namespace
}  // namespace quern::vulkan::test
