// SPDX-License-Identifier: Apache-2.0
// Attention over exact pages: shapes, lengths around the borders of tiles, spans and blocks, chunks, windows, masks, old pages.
#include "tests/vulkan/attention_support.h"

namespace quern::vulkan::test {
namespace {

class AttentionTest : public AttentionFixture {
protected:
    /// A chunk whose table is a shuffled part of the pool; what no position uses stays NaN.
    static std::vector<float> run(const AttnCase& c, KvFormat format, std::uint32_t page_tokens, std::vector<ChunkSpec> chunks, std::uint32_t seed = 1) {
        std::uint32_t n_pages = 1;
        for (const ChunkSpec& ch : chunks) n_pages += pages_of(ch, page_tokens);
        Pages pages(format, c.head_dim, c.n_head_kv, page_tokens, n_pages);
        const std::vector<std::uint32_t> ids = shuffled(n_pages, seed);
        std::uint32_t next = 0;
        for (ChunkSpec& ch : chunks) {
            ch.table.assign(ids.begin() + next, ids.begin() + next + pages_of(ch, page_tokens));
            next += pages_of(ch, page_tokens);
            fill(pages, ch, c, seed++);
        }
        return check(c, chunks, {&pages}, {&pages}, [&](const ChunkSpec& ch, std::int32_t pos) {
            const ChunkSpec& own = *std::find_if(chunks.begin(), chunks.end(), [&](const ChunkSpec& x) { return x.table == ch.table; });
            return std::vector<Piece>{{0, pos + 1, &pages, kSourcePages, &own.table, 0, 0}};
        });
    }

private:
    static std::uint32_t pages_of(const ChunkSpec& c, std::uint32_t page_tokens) {
        return (static_cast<std::uint32_t>(c.pos0) + c.n_tokens + page_tokens - 1) / page_tokens;
    }
    static void fill(Pages& pages, const ChunkSpec& ch, const AttnCase& c, std::uint32_t seed) {
        const std::uint32_t n = static_cast<std::uint32_t>(ch.pos0) + ch.n_tokens;
        std::vector<float> k = gaussian(std::size_t{n} * c.head_dim, seed), v = gaussian(std::size_t{n} * c.head_dim, seed + 1000);
        const std::int32_t least = c.window ? std::max(0, ch.pos0 - c.window + 1) : 0;   // nobody sees what lies before
        for (std::vector<float>* x : {&k, &v}) std::fill_n(x->begin(), static_cast<std::size_t>(least) * c.head_dim, std::numeric_limits<float>::quiet_NaN());
        for (std::uint32_t h = 0; h < c.n_head_kv; ++h)
            scalar().kv_store[static_cast<int>(pages.format)]({pages.view(h, ch.table.data()), k.data(), v.data(), c.head_dim, c.head_dim, n, 0});
    }
};

ChunkSpec chunk(std::int32_t pos0, std::uint32_t n) { return {pos0, n, {}}; }

TEST_F(AttentionTest, OneTokenAtEveryLength) {
    const AttnCase c{64, 2, 3, false};
    std::vector<ChunkSpec> chunks;   // a batch of sequences
    for (const std::int32_t n : {1, 2, 15, 16, 17, 31, 32, 33, 100, 255, 256, 257, 271, 512, 513, 700}) chunks.push_back(chunk(n - 1, 1));
    run(c, KvFormat::F16, 16, chunks);
    run(c, KvFormat::F32, 32, chunks);
}

TEST_F(AttentionTest, HeadsThatShareAKvHead) {
    for (std::uint32_t n_rep = 1; n_rep <= 8; ++n_rep)
        for (const bool wide : {false, true}) run({64, 2, n_rep, wide}, KvFormat::F16, 16, {chunk(279, 3), chunk(20, 1)});
    for (const bool wide : {false, true}) run({128, 1, 40, wide}, KvFormat::F16, 16, {chunk(270, 2)});   // more than a group takes
}

TEST_F(AttentionTest, HeadSizes) {
    for (const std::uint32_t d : {8u, 32u, 40u, 64u, 72u, 80u, 96u, 112u, 128u, 192u, 256u}) {
        if (QUERN_TEST_SLOW && d != 8 && d != 72 && d != 128 && d != 256) continue;
        for (const bool wide : {false, true})
            for (const KvFormat f : {KvFormat::F16, KvFormat::F32}) run({d, 1, 4, wide}, f, 16, {chunk(260, 9)});
    }
}

TEST_F(AttentionTest, PromptsOfEveryLength) {
    for (std::uint32_t n = 1; n <= 40; n += n < 4 ? 1 : 3)
        for (const std::int32_t cut : {0, 256})
            run({64, 1, 4, true, 0, 0, false, cut}, KvFormat::F16, 16, {chunk(0, n), chunk(250, n)}, n);
}

TEST_F(AttentionTest, WindowsSoftCapsAndSinks) {
    for (const bool wide : {false, true})
        for (const std::int32_t window : {1, 7, 100, 300}) run({64, 1, 2, wide, window, 0, false, wide ? 0 : 256}, KvFormat::F16, 16, {chunk(0, 20), chunk(410, 20)});
    for (const bool wide : {false, true}) {
        run({64, 1, 4, wide, 0, 2.0f, false}, KvFormat::F16, 16, {chunk(300, 2)});
        run({64, 2, 4, wide, 0, 0, true}, KvFormat::F16, 16, {chunk(0, 1), chunk(300, 2)});
    }
}

TEST_F(AttentionTest, TreesSeeTheirAncestors) {
    for (const bool wide : {false, true}) {
        ChunkSpec tree = chunk(250, 64);
        for (std::uint64_t i = 0; i < 64; ++i) tree.masks.push_back((i ? tree.masks[(i - 1) / 3] : 0) | std::uint64_t{1} << i);
        run({64, 1, 2, wide}, KvFormat::F16, 16, {tree, chunk(3, 5)});
    }
}

TEST_F(AttentionTest, ARowDoesNotDependOnOthers) {
    const AttnCase c{64, 1, 4, true, 0, 0, false, 0};
    // The same sequence and query alone and as the last of a prompt: check() draws queries by index, so the first tokens agree.
    const std::vector<float> alone = run(c, KvFormat::F16, 16, {chunk(299, 1)}, 5);
    const std::vector<float> again = run(c, KvFormat::F16, 16, {chunk(299, 1), chunk(70, 9)}, 5);
    ASSERT_EQ(std::memcmp(alone.data(), again.data(), alone.size() * sizeof(float)), 0);
}

}  // namespace
}  // namespace quern::vulkan::test
