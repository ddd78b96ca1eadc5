// SPDX-License-Identifier: Apache-2.0
// A batch whose tokens form a tree: each branch gives what a line of its tokens gives.
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "engine/api/model_impl.h"
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
        EXPECT_TRUE(e.pages().take((n + e.pages().shape().page_tokens - 1) / e.pages().shape().page_tokens, pages_) && ring_.reserve(n));
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
