// SPDX-License-Identifier: Apache-2.0
// Quantized pages: migration against the scalar table, attention over them, and over the pieces of a cache in two tiers.
#include "engine/kv/tiers.h"
#include "tests/vulkan/attention_support.h"

namespace quern::vulkan::test {
namespace {

constexpr std::uint32_t kGroup = kernels::kKvGroup;

class AttentionQuantTest : public AttentionFixture {
protected:
    static std::uint32_t pages_for(std::uint32_t n, std::uint32_t page) { return (n + page - 1) / page; }

    /// n positions of F16 pages; channels differ in size and offset, as K's do.
    static void fill(Pages& pages, const std::vector<std::uint32_t>& table, std::uint32_t n, std::uint32_t seed) {
        const std::uint32_t dim = pages.head_dim;
        for (std::uint32_t h = 0; h < pages.n_head_kv; ++h) {
            std::vector<float> k = gaussian(std::size_t{n} * dim, seed + 2 * h), v = gaussian(std::size_t{n} * dim, seed + 2 * h + 1);
            for (std::size_t i = 0; i < k.size(); ++i) k[i] = k[i] * static_cast<float>(i % dim % 5 + 1) * 0.25f + static_cast<float>(i % dim % 3);
            scalar().kv_store[static_cast<int>(pages.format)]({pages.view(h, table.data()), k.data(), v.data(), dim, dim, n, 0});
        }
    }
    static void quantize(Pages& from, const std::vector<std::uint32_t>& table, std::uint32_t from_page, Pages& to, const std::vector<std::uint32_t>& to_table, std::uint32_t group) {
        const std::uint32_t pages[] = {table[from_page], table[from_page + 1]};
        for (std::uint32_t h = 0; h < from.n_head_kv; ++h)
            scalar().kv_quantize[static_cast<int>(to.format) - kernels::kKvExactFormats]({from.view(h, pages), to.view(h, to_table.data()), 0, static_cast<std::int32_t>(group * kGroup)});
    }

    /// Every byte of the codes, scales and minima of quantized pages, made by the device and by the scalar table.
    static void check_migration(KvFormat format, std::uint32_t dim, Pages& exact, std::uint32_t n_groups) {
        const std::vector<std::uint32_t> table = shuffled(2 * n_groups, dim), to_table = shuffled(n_groups + 1, dim + 1);
        fill(exact, table, 0, 0);
        Pages want(format, dim, exact.n_head_kv, kGroup, n_groups + 1);
        const Buffer empty, from = upload(exact.bytes), to = upload(want.bytes);
        std::vector<KvGroup> jobs;
        for (std::uint32_t g = 0; g < n_groups; ++g) {
            jobs.push_back({g % 2 ? kSourceExact : kSourceStaging, table[2 * g], table[2 * g + 1], to_table[g]});
            quantize(exact, table, 2 * g, want, to_table, g);
        }
        RunBlock run;
        run.header.quantize = run.add(jobs);
        const Buffer r = upload(run.words());
        const auto constants = kv_quantize_constants(dim, format);
        dispatch(kernel("kv_quantize", {constants.begin(), constants.end()}),
                 KvQuantizePush{r.address(), to.address(), from.address(), from.address(), kListQuantize, exact.n_head_kv}, {n_groups, exact.n_head_kv});
        const std::vector<std::byte> got = download<std::byte>(to, want.bytes.size());
        for (std::size_t i = 0; i < got.size(); ++i)
            ASSERT_EQ(got[i], want.bytes[i]) << "head_dim " << dim << ", format " << static_cast<int>(format) << ", byte " << i % want.head_bytes << " of a head of " << want.head_bytes;
    }
};

TEST_F(AttentionQuantTest, MigrationGivesTheBitsOfTheCpu) {
    for (const KvFormat f : {KvFormat::Q8, KvFormat::Q4})
        for (const std::uint32_t dim : {8u, 32u, 40u, 64u, 80u, 96u, 128u, 256u}) {
            constexpr std::uint32_t kGroups = 5;
            Pages exact(KvFormat::F16, dim, 2, 16, 2 * kGroups);
            const std::vector<std::uint32_t> all = [] { std::vector<std::uint32_t> x(2 * kGroups); std::iota(x.begin(), x.end(), 0u); return x; }();
            fill(exact, all, 32 * kGroups, dim);
            check_migration(f, dim, exact, kGroups);
        }
}

TEST_F(AttentionQuantTest, MigrationOfAllSizesOfNumbers) {
    for (const KvFormat f : {KvFormat::Q8, KvFormat::Q4}) {
        constexpr std::uint32_t kGroups = 40, kDim = 64;
        Pages exact(KvFormat::F16, kDim, 1, 16, 2 * kGroups);
        std::mt19937 rng(3);
        // Each page keeps to a few exponents, subnormal halves and the largest ones among them; some channels are constant or 0.
        for (std::size_t i = 0; i < exact.bytes.size(); i += 2) {
            const std::size_t page = i / exact.head_bytes / 2, channel = i % exact.head_bytes / 32;
            std::uint32_t h = std::min<std::uint32_t>(30, static_cast<std::uint32_t>(page * 7 % 30 + rng() % 3)) << 10 | (rng() & 0x3ff) | (rng() & 1) << 15;
            if (channel % 9 == 4) h = 0;
            if (channel % 9 == 5) h = 0x3c01;
            const auto x = static_cast<std::uint16_t>(h);
            std::memcpy(exact.bytes.data() + i, &x, 2);
        }
        check_migration(f, kDim, exact, kGroups);
    }
}

TEST_F(AttentionQuantTest, AttentionOverQuantizedPages) {
    for (const KvFormat f : {KvFormat::Q8, KvFormat::Q4})
        for (const bool wide : {false, true})
            for (const std::uint32_t dim : {8u, 40u, 64u, 80u, 128u, 256u}) {
                if (QUERN_TEST_SLOW && ((dim != 8 && dim != 40 && dim != 128) || wide != (f == KvFormat::Q4))) continue;
                const AttnCase c{dim, 2, dim == 64 ? 3u : 4u, wide, 0, dim == 80 ? 4.0f : 0.0f};
                constexpr std::uint32_t kTokens = 320;
                Pages exact(KvFormat::F16, dim, 2, 16, kTokens / 16), pages(f, dim, 2, kGroup, kTokens / kGroup + 2);
                const std::vector<std::uint32_t> from = shuffled(kTokens / 16, 1);
                std::vector<ChunkSpec> chunks = {{kTokens - 3, 3, shuffled(kTokens / kGroup, 2)}, {31, 1, {10}}};
                fill(exact, from, kTokens, dim);
                for (std::uint32_t g = 0; g < kTokens / kGroup; ++g) quantize(exact, from, 2 * g, pages, chunks[0].table, g);
                quantize(exact, from, 4, pages, chunks[1].table, 0);
                check(c, chunks, {&pages}, {&pages}, [&](const ChunkSpec& ch, std::int32_t pos) {
                    return std::vector<Piece>{{0, pos + 1, &pages, kSourcePages, &chunks[ch.n_tokens == 1].table, 0, 0}};
                });
            }
}

/// A cache in two tiers as engine/kv/tiers.h cuts it: first page, quantized groups, ring or staging memory.
TEST_F(AttentionQuantTest, PiecesOfTwoTiers) {
    for (const KvFormat f : {KvFormat::Q8, KvFormat::Q4})
        for (const std::uint32_t tail : {0u, 64u})
            for (const std::int32_t window : {0, 290})
                for (const std::uint32_t n : {1u, 16u, 75u}) {
                    if (QUERN_TEST_SLOW && (window == 0) != (f == KvFormat::Q4)) continue;
                    const engine::KvTiers tiers = engine::KvTiers::make(tail, 4096);
                    const AttnCase c{64, 2, 4, n > 1, window, 0, false, n > 16 ? 0 : 256};
                    const std::int32_t pos0 = 333;
                    const std::uint32_t total = static_cast<std::uint32_t>(pos0) + n;
                    // Everything once as F16 in order of position; the tiers take their parts from there.
                    Pages all(KvFormat::F16, 64, 2, 16, pages_for(total, 16) + 1), old(f, 64, 2, kGroup, pages_for(total, kGroup) + 1);
                    std::vector<std::uint32_t> order = shuffled(pages_for(total, 16) + 1, n);
                    fill(all, order, total, 5 + n);
                    std::vector<std::uint32_t> twice = order, old_table = shuffled(pages_for(total, kGroup) + 1, n + 1);
                    twice[0] = twice[1];
                    for (std::uint32_t g = 0; g < tiers.quantized(total) / kGroup; ++g) quantize(all, twice, 2 * g, old, old_table, g);
                    const std::int32_t origin = tiers.window(pos0);
                    const std::vector<std::uint32_t> sink = {order[0]}, recent(order.begin() + origin / 16, order.end());
                    const bool staged = !tiers.fits_ring(pos0, n);
                    Pages none = all;
                    std::fill(none.bytes.begin(), none.bytes.end(), std::byte{0xff});
                    // Where the ring or the staging memory is not meant, NaN.
                    Pages exact = staged ? none : all, staging = staged ? all : none;
                    if (staged)
                        std::copy_n(all.bytes.begin() + static_cast<std::ptrdiff_t>(order[0] * 2 * all.head_bytes), 2 * all.head_bytes,
                                    exact.bytes.begin() + static_cast<std::ptrdiff_t>(order[0] * 2 * all.head_bytes));
                    const Pieces pieces = [&](const ChunkSpec&, std::int32_t pos) {
                        const std::int32_t border = tiers.boundary(pos), least = window ? std::max(0, pos - window + 1) : 0;
                        std::vector<Piece> out;
                        if (border > 0 && least < 16) out.push_back({0, 16, &exact, kSourceExact, &sink, 0, 0});
                        if (std::max(least, 16) < border) out.push_back({16, border, &old, kSourcePages, &old_table, 0, 1});
                        out.push_back({border, pos + 1, staged ? &staging : &exact, staged ? kSourceStaging : kSourceExact, &recent, origin, 0});
                        return out;
                    };
                    check(c, {{pos0, n, old_table}}, {&old, &exact, &staging}, {&exact, &old}, pieces);
                    ASSERT_EQ(staged, n > 16);
                }
}

}  // namespace
}  // namespace quern::vulkan::test
