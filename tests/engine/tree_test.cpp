// SPDX-License-Identifier: Apache-2.0
// A batch whose tokens form a tree: each branch gives what a line of its tokens gives.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "engine/api/model_impl.h"
#include "engine/kv/move.h"
#include "tests/support/models.h"

namespace quern {
namespace {

using engine::KvTiers;

std::vector<Token> random_tokens(std::size_t n, std::uint32_t seed) {
    std::mt19937 rng(seed);
    std::vector<Token> out(n);
    for (Token& t : out) t = static_cast<Token>(rng() % 512);
    return out;
}

constexpr int kParents[] = {-1, 0, 0, 1, 2, 3, 2, -1, 7};
constexpr std::uint32_t kNodes = std::size(kParents);

std::uint64_t mask_of(std::uint32_t i) {
    std::uint64_t m = 0;
    for (int at = static_cast<int>(i); at >= 0; at = kParents[at]) m |= std::uint64_t{1} << at;
    return m;
}

/// A sequence's pages, and runs of the executor over them.
class Tree {
public:
    Tree(engine::Executor& e, std::uint32_t n) : e_(e), ring_(e.exact_pages(), e.tiers()) {
        EXPECT_TRUE(e.pages().take((n + e.pages().shape().page_tokens - 1) / e.pages().shape().page_tokens, pages_) && ring_.reserve(n) && ring_.own(0, n));
    }
    ~Tree() {
        for (const std::uint32_t p : pages_) e_.pages().release(p);
    }
    Status run(std::span<const Token> tokens, std::int32_t pos0, const std::uint64_t* mask, std::vector<float>* logits = nullptr) {
        engine::SeqChunk chunk{pages_.data(), 0, static_cast<std::uint32_t>(tokens.size()), pos0, ring_.table()};
        chunk.mask = mask;
        std::vector<std::uint32_t> outputs;
        for (std::uint32_t i = 0; logits && i < tokens.size(); ++i) outputs.push_back(i);
        const std::size_t n_vocab = e_.hparams().n_vocab;
        if (logits) logits->resize(tokens.size() * n_vocab);
        return e_.run({tokens, {&chunk, 1}, outputs, logits ? logits->data() : nullptr, n_vocab});
    }

private:
    engine::Executor& e_;
    std::vector<std::uint32_t> pages_;
    engine::ExactRing ring_;
};

struct Kind { KvType kv; std::int32_t tail; };

TEST(Tree, BranchesEqualLines) {
    for (const Kind k : {Kind{KvType::f16, -1}, Kind{KvType::f32, -1}, Kind{KvType::q8, 0}, Kind{KvType::q4, 4}})
        for (const std::uint32_t n_prefix : {0u, 40u, 250u}) {   // the last: across a span's end
            SCOPED_TRACE(testing::Message() << "type " << int(k.kv) << ", after " << n_prefix);
            ModelOptions o{.n_threads = 2, .n_ctx = 600, .kv_type = k.kv, .prefix_cache = false};
            o.kv_tail = k.tail;
            o.kv_sessions = 2;
            auto m = Model::load((test::tiny_dir() / "llama-q4_0.gguf").string(), o);
            ASSERT_TRUE(m.ok()) << m.error().message;
            auto& executor = *Internals::of(*m).executor;
            const auto prefix = random_tokens(n_prefix, 1), nodes = random_tokens(kNodes, 2);
            const auto pos0 = static_cast<std::int32_t>(n_prefix);
            if (executor.tiers().on && executor.tiers().boundary(pos0) != executor.tiers().boundary(pos0 + int(kNodes) - 1)) continue;
            std::vector<std::uint64_t> mask;
            for (std::uint32_t i = 0; i < kNodes; ++i) mask.push_back(mask_of(i));
            Tree tree(executor, n_prefix + kNodes);
            std::vector<float> got;
            if (n_prefix) {
                ASSERT_TRUE(tree.run(prefix, 0, nullptr).ok());
            }
            const Status s = tree.run(nodes, pos0, mask.data(), &got);
            ASSERT_TRUE(s.ok()) << s.error().message;
            for (std::uint32_t i = 0; i < kNodes; ++i) {
                std::vector<Token> line = prefix;
                for (std::uint32_t j = 0; j <= i; ++j)
                    if (mask[i] >> j & 1) line.push_back(nodes[j]);
                auto session = m->new_session();
                ASSERT_TRUE(session->decode(line).ok());
                const std::span<const float> want = session->logits(), row(got.data() + i * want.size(), want.size());
                // The first two lie where they would in a line.
                if (i < 2) {
                    EXPECT_EQ(std::memcmp(row.data(), want.data(), want.size_bytes()), 0) << "node " << i;
                }
                double error = 0, size = 0;
                for (std::size_t v = 0; v < want.size(); ++v) {
                    error += (double(row[v]) - want[v]) * (double(row[v]) - want[v]);
                    size += double(want[v]) * want[v];
                }
                // Another order of sums may round an activation to the next of 255 values, which costs what rounding costs
                // these models (docs/numerics.md); one token seen too many or too few gives more than 0.01.
                EXPECT_LT(error / size, 7e-4) << "node " << i;
            }
        }
}

/// Branches of kParents, and how many of their nodes lie where a line's would.
struct Branch { std::vector<std::uint32_t> nodes; bool in_place; };
const Branch kBranches[] = {{{0}, true}, {{0, 1}, true}, {{0, 1, 3, 5}, false}, {{0, 2, 6}, false}, {{7, 8}, false}, {{0, 2, 4}, false}};

/// A branch taken is as good as one read: what follows is what follows its tokens.
TEST(Tree, ATakenBranchGoesOnLikeALine) {
    for (const KvType type : {KvType::f16, KvType::f32})
        for (const std::uint32_t n_prefix : {1u, 11u, 250u})   // across a page's and a span's end
            for (const auto& [branch, in_place] : kBranches) {
                SCOPED_TRACE(testing::Message() << "type " << int(type) << ", after " << n_prefix << ", to node " << branch.back());
                auto m = Model::load((test::tiny_dir() / "llama-q4_0.gguf").string(), {.n_threads = 2, .n_ctx = 600, .kv_type = type});
                ASSERT_TRUE(m.ok()) << m.error().message;
                auto& executor = *Internals::of(*m).executor;
                const auto prefix = random_tokens(n_prefix, 1), nodes = random_tokens(kNodes, 2), after = random_tokens(40, 4);
                std::vector<std::uint64_t> mask;
                for (std::uint32_t i = 0; i < kNodes; ++i) mask.push_back(mask_of(i));
                engine::Sequence q(executor, 300), line(executor, 300);
                std::vector<float> logits(std::size_t{kNodes} * q.n_vocab());
                ASSERT_TRUE(q.append(prefix).ok() && q.run().ok());
                ASSERT_TRUE(q.run_tree(nodes, mask, logits.data()).ok());
                ASSERT_TRUE(q.take_branch(branch).ok());
                const auto row = logits.begin() + static_cast<std::ptrdiff_t>(std::size_t{branch.back()} * q.n_vocab());
                EXPECT_TRUE(std::equal(q.logits().begin(), q.logits().end(), row));
                std::vector<Token> text = prefix;
                for (const std::uint32_t i : branch) text.push_back(nodes[i]);
                EXPECT_TRUE(std::ranges::equal(q.tokens(), text));
                EXPECT_EQ(q.n_waiting(), 0u);
                ASSERT_TRUE(q.append(after).ok() && q.run().ok());
                ASSERT_TRUE(line.append(text, false).ok() && line.append(after, false).ok() && line.run().ok());
                EXPECT_EQ(line.n_reused(), 0u);
                const auto got = q.logits(), want = line.logits();
                double error = 0, size = 0;
                for (std::size_t v = 0; v < want.size(); ++v) {
                    error += (double(got[v]) - want[v]) * (double(got[v]) - want[v]);
                    size += double(want[v]) * want[v];
                }
                EXPECT_LT(error / size, in_place ? 1e-30 : 7e-4) << "as in BranchesEqualLines";
            }
}

/// What was moved is, to the bit, what the tree's run wrote.
TEST(Tree, PositionsAreCopiedWhole) {
    for (const KvType type : {KvType::f16, KvType::f32}) {
        auto m = Model::load((test::tiny_dir() / "llama-q4_0.gguf").string(), {.n_ctx = 600, .kv_type = type});
        ASSERT_TRUE(m.ok());
        auto& pool = Internals::of(*m).executor->pages();
        const kernels::KvHeadView shape = pool.view(0, 0, nullptr);
        const std::size_t size = pool.shape().element_bytes(), pitch = pool.shape().v_pitch();
        std::vector<std::uint32_t> pages;
        ASSERT_TRUE(pool.take(3, pages));
        std::mt19937 rng(9);
        for (std::byte& b : pool.memory()) b = static_cast<std::byte>(rng());
        // Layout as in kernels/views.h, written out again.
        const auto value = [&](std::uint32_t layer, std::uint32_t head, std::uint32_t pos, std::size_t d, bool k) {
            const std::size_t at = k ? d * 16 + pos % 16 : pos % 16 * pitch + d;
            const kernels::KvHeadView v = pool.view(layer, head, pages.data());
            const std::byte* from = v.base + pages[pos / 16] * v.page_stride + (k ? v.k_offset : v.v_offset) + at * size;
            return std::vector(from, from + size);
        };
        const std::vector<std::byte> before(pool.memory().begin(), pool.memory().end());
        std::vector<std::vector<std::byte>> want;
        const auto each = [&](auto fn) {
            for (std::uint32_t layer = 0; layer < pool.shape().n_head_kv.size(); ++layer)
                for (std::uint32_t head = 0; head < pool.shape().n_head_kv[layer]; ++head)
                    for (std::size_t d = 0; d < shape.head_dim; ++d)
                        for (const bool k : {true, false}) fn(layer, head, d, k);
        };
        each([&](auto layer, auto head, auto d, bool k) { want.push_back(value(layer, head, 45, d, k)); });
        engine::copy_position(pool, pages.data(), 45, 14);
        std::size_t i = 0, changed = 0;
        each([&](auto layer, auto head, auto d, bool k) { EXPECT_EQ(value(layer, head, 14, d, k), want[i++]); });
        for (std::size_t b = 0; b < before.size(); ++b) changed += before[b] != pool.memory()[b];
        EXPECT_LE(changed, want.size() * size) << "and nothing else";
    }
}

TEST(Tree, WhatCannotBeTaken) {
    auto m = Model::load((test::tiny_dir() / "llama-q4_0.gguf").string(), {.n_ctx = 64});
    ASSERT_TRUE(m.ok());
    auto& executor = *Internals::of(*m).executor;
    engine::Sequence q(executor, 20);
    const auto text = random_tokens(14, 1), nodes = random_tokens(7, 2);
    const std::vector<std::uint64_t> mask{1, 3, 5, 9, 17, 33, 65};
    std::vector<float> logits(7 * std::size_t{q.n_vocab()});
    EXPECT_EQ(q.run_tree(nodes, mask, logits.data()).error().code, Errc::invalid_argument) << "nothing before it";
    ASSERT_TRUE(q.append(text).ok());
    EXPECT_EQ(q.run_tree(std::span(nodes).first(2), std::span(mask).first(2), logits.data()).error().code, Errc::invalid_argument) << "it waits";
    ASSERT_TRUE(q.run().ok());
    EXPECT_EQ(q.run_tree(nodes, mask, logits.data()).error().code, Errc::context_full);
    EXPECT_EQ(q.run_tree(std::vector<Token>{-1}, std::span(mask).first(1), logits.data()).error().code, Errc::invalid_argument);
    const std::uint32_t n_free = executor.pages().n_free();
    ASSERT_TRUE(q.run_tree(std::span(nodes).first(5), std::span(mask).first(5), logits.data()).ok());
    for (const auto& branch : std::vector<std::vector<std::uint32_t>>{{1}, {0, 1, 2}, {0, 5}, {1, 0}, {0, 0}})
        EXPECT_NE(q.take_branch(branch).error().message.find("does not follow"), std::string::npos);
    EXPECT_EQ(q.tokens().size(), 14u);
    const std::vector<std::uint32_t> branch{0, 3};
    ASSERT_TRUE(q.append(std::span(nodes).first(1)).ok());   // drops the tree
    EXPECT_FALSE(q.take_branch(branch).ok());
    q.truncate(14);
    EXPECT_EQ(executor.pages().n_free(), n_free);

    auto two = Model::load((test::tiny_dir() / "llama-q4_0.gguf").string(), {.n_ctx = 64, .kv_type = KvType::q8});
    engine::Sequence quantized(*Internals::of(*two).executor, 20);
    ASSERT_TRUE(quantized.append(text).ok() && quantized.run().ok());
    EXPECT_EQ(quantized.run_tree(std::span(nodes).first(1), std::span(mask).first(1), logits.data()).error().code, Errc::unsupported);
}

/// Sums over a tree differ from a line's in their last bits: nobody else may get them.
TEST(Tree, MovedBranchesAreNotShared) {
    auto m = Model::load((test::tiny_dir() / "llama-q4_0.gguf").string(), {.n_ctx = 256});
    ASSERT_TRUE(m.ok());
    auto& executor = *Internals::of(*m).executor;
    const auto text = random_tokens(14, 1), nodes = random_tokens(4, 2), after = random_tokens(40, 3);
    const std::vector<std::uint64_t> mask{1, 3, 5, 13};
    std::vector<float> logits(4 * std::size_t{executor.hparams().n_vocab});
    for (const bool moved : {false, true}) {
        engine::Sequence q(executor, 100), other(executor, 100);
        ASSERT_TRUE(q.append(text).ok() && q.run().ok());
        ASSERT_TRUE(q.run_tree(nodes, mask, logits.data()).ok());
        ASSERT_TRUE(q.take_branch(moved ? std::vector<std::uint32_t>{0, 2, 3} : std::vector<std::uint32_t>{0, 1}).ok());
        ASSERT_TRUE(q.append(after).ok() && q.run().ok());
        const std::vector<Token> all(q.tokens().begin(), q.tokens().end());
        ASSERT_TRUE(other.append(all).ok());
        if (moved) { EXPECT_LE(other.n_reused(), 15u) << "what the first round left"; }
        else { EXPECT_GE(other.n_reused(), 48u); }
    }
}

TEST(Tree, WhatIsNoTreeIsRefused) {
    ModelOptions o{.kv_type = KvType::q4};
    auto m = Model::load((test::tiny_dir() / "llama-q4_0.gguf").string(), o);
    ASSERT_TRUE(m.ok());
    auto& executor = *Internals::of(*m).executor;
    Tree tree(executor, 128);
    const auto tokens = random_tokens(65, 3);
    std::vector<std::uint64_t> mask(65, 1);
    const auto refusal = [&](std::uint32_t n, std::int32_t pos0) {
        const Status s = tree.run(std::span(tokens).first(n), pos0, mask.data());
        return s ? std::string("run") : s.error().message;
    };
    EXPECT_EQ(refusal(1, 0), "run");
    EXPECT_NE(refusal(2, 0).find("token 1 must have its own bit"), std::string::npos);
    mask[1] = 7;
    EXPECT_NE(refusal(2, 0).find("none behind it"), std::string::npos);
    mask[1] = 2;
    EXPECT_EQ(refusal(2, 0), "run");
    EXPECT_NE(refusal(2, 30).find("same positions quantized"), std::string::npos);
    EXPECT_NE(refusal(65, 0).find("64 is the most"), std::string::npos);
}

}  // namespace
}  // namespace quern
