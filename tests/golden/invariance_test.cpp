// SPDX-License-Identifier: Apache-2.0
// The same tokens give the same bits: whatever the thread count, the cut of the prompt, whether weights are packed at load,
// and what else the process does.
#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "quern/quern.hpp"
#include "tests/support/models.h"

namespace quern {
namespace {

std::string tiny(const char* name) { return (test::tiny_dir() / name).string(); }

std::vector<Token> random_tokens(std::size_t n, std::uint32_t n_vocab) {
    std::mt19937 rng(7);
    std::vector<Token> out(n);
    for (Token& t : out) t = static_cast<Token>(rng() % n_vocab);
    return out;
}

Result<Model> load(const std::string& path, int threads, int threads_batch = 0, bool pack = true) {
    ModelOptions o;
    o.n_threads = threads;
    o.n_threads_batch = threads_batch;
    o.pack = pack;
    o.prefix_cache = false;   // else the second time would compute little
    return Model::load(path, o);
}

/// Logits after the last token when the prompt is fed in pieces of `chunk`.
std::vector<float> last_logits(const Model& model, std::span<const Token> tokens, std::size_t chunk) {
    auto s = model.new_session();
    for (std::size_t i = 0; i < tokens.size(); i += chunk) {
        const Status st = s->decode(tokens.subspan(i, std::min(chunk, tokens.size() - i)));
        EXPECT_TRUE(st.ok()) << st.error().message;
    }
    return {s->logits().begin(), s->logits().end()};
}

void expect_same_bits(const std::vector<float>& a, const std::vector<float>& b, const std::string& what) {
    ASSERT_EQ(a.size(), b.size()) << what;
    EXPECT_EQ(0, std::memcmp(a.data(), b.data(), a.size() * sizeof(float))) << what;
}

void check_model(const std::string& path, std::size_t n_tokens) {
    auto one = load(path, 1), two = load(path, 2), three = load(path, 3, 2), unpacked = load(path, 2, 0, false);
    ASSERT_TRUE(one.ok() && two.ok() && three.ok() && unpacked.ok());
    EXPECT_EQ(two->info().n_threads_batch, 2) << "as n_threads where that is given";
    EXPECT_EQ(three->info().n_threads_batch, 2);
    const auto tokens = random_tokens(n_tokens, one->info().n_vocab);
    const auto want = last_logits(*one, tokens, tokens.size());
    for (const std::size_t chunk : {std::size_t{1}, std::size_t{7}, std::size_t{64}, std::size_t{512}})
        for (const Model* m : {&*one, &*two, &*three, &*unpacked})
            expect_same_bits(want, last_logits(*m, tokens, chunk), path + ", chunks of " + std::to_string(chunk) + ", threads " + std::to_string(m->info().n_threads) + (m == &*unpacked ? ", not packed" : ""));
    // decode_all computes every position in one go; its last row is the same.
    std::vector<float> all;
    auto s = two->new_session();
    ASSERT_TRUE(s->decode_all(tokens, all).ok());
    expect_same_bits(want, {all.end() - static_cast<std::ptrdiff_t>(want.size()), all.end()}, path + ", all positions");
}

// 300 tokens: past a span of attention (256), so that merging takes part.
TEST(Invariance, TinyModels) {
    for (const char* name : {"llama-q4_0.gguf", "llama-q5_k.gguf", "qwen2-q4_0.gguf"}) check_model(tiny(name), 300);
}

TEST(Invariance, Smollm2) {
    const auto model = test::smollm2();
    if (!model) GTEST_SKIP() << test::kNoSmollm2;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    check_model(*model, 40);
#else
    check_model(*model, 530);
#endif
}

TEST(Invariance, TruncateAndGoOn) {
    auto model = load(tiny("llama-q4_0.gguf"), 2);
    ASSERT_TRUE(model.ok());
    const auto tokens = random_tokens(100, model->info().n_vocab);
    const auto want = last_logits(*model, tokens, 100);
    auto s = model->new_session();
    const auto other = random_tokens(90, 100);
    ASSERT_TRUE(s->decode(std::span(tokens).first(33)).ok());
    ASSERT_TRUE(s->decode(other).ok());
    ASSERT_TRUE(s->truncate(33).ok());
    EXPECT_TRUE(s->logits().empty());
    ASSERT_TRUE(s->decode(std::span(tokens).subspan(33)).ok());
    expect_same_bits(want, {s->logits().begin(), s->logits().end()}, "after truncation");
}

// Two models on two threads, and two sessions of one model on two threads: nothing is shared that must not be.
TEST(Invariance, TwoModelsOnTwoThreads) {
    auto a = load(tiny("llama-q4_0.gguf"), 2), b = load(tiny("qwen2-q4_0.gguf"), 2);
    ASSERT_TRUE(a.ok() && b.ok());
    const auto tokens = random_tokens(40, a->info().n_vocab);
    const auto want_a = last_logits(*a, tokens, 40), want_b = last_logits(*b, tokens, 40);
    std::vector<float> got[4];
    const Model* models[] = {&*a, &*b, &*a, &*b};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) threads.emplace_back([&, i] { for (int k = 0; k < 3; ++k) got[i] = last_logits(*models[i], tokens, 7); });
    for (auto& t : threads) t.join();
    for (int i = 0; i < 4; ++i) expect_same_bits(i % 2 ? want_b : want_a, got[i], "thread " + std::to_string(i));
}

}  // namespace
}  // namespace quern
