// SPDX-License-Identifier: Apache-2.0
// The same tokens give the same bits: whatever the thread count, the cut of the prompt, whether weights are packed at load,
// and what else the process does.
#include <gtest/gtest.h>

#include <random>
#include <span>
#include <thread>

#include "engine/api/model_impl.h"
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

Result<Model> load(const std::string& path, int threads, int threads_batch = 0, bool pack = true, KvType kv = KvType::f16, std::int32_t tail = -1) {
    ModelOptions o;
    o.n_threads = threads;
    o.n_threads_batch = threads_batch;
    o.pack = pack;
    o.prefix_cache = false;   // else the second time would compute little
    o.kv_type = kv;
    o.kv_tail = tail;
    return Model::load(path, o);
}

/// Logits after the last token when the prompt is fed in pieces of `chunk`, from token `first` on.
std::vector<float> last_logits(const Model& model, std::span<const Token> tokens, std::size_t chunk, std::size_t first = 0) {
    auto s = model.new_session();
    if (first > 0) { EXPECT_TRUE(s->decode(tokens.first(first)).ok()); }
    for (std::size_t i = first; i < tokens.size(); i += chunk) {
        const Status st = s->decode(tokens.subspan(i, std::min(chunk, tokens.size() - i)));
        EXPECT_TRUE(st.ok()) << st.error().message;
    }
    return {s->logits().begin(), s->logits().end()};
}

void expect_same_bits(const std::vector<float>& a, const std::vector<float>& b, const std::string& what) {
    ASSERT_EQ(a.size(), b.size()) << what;
    EXPECT_EQ(0, std::memcmp(a.data(), b.data(), a.size() * sizeof(float))) << what;
}

/// Small pieces begin at token `first`.
void check_model(const std::string& path, std::size_t n_tokens, std::size_t first = 0) {
    auto one = load(path, 1), two = load(path, 2), three = load(path, 3, 2), unpacked = load(path, 2, 0, false);
    ASSERT_TRUE(one.ok() && two.ok() && three.ok() && unpacked.ok());
    EXPECT_EQ(two->info().n_threads_batch, 2) << "as n_threads where that is given";
    EXPECT_EQ(three->info().n_threads_batch, 2);
    const auto tokens = random_tokens(n_tokens, one->info().n_vocab);
    const auto want = last_logits(*one, tokens, tokens.size());
    for (const std::size_t chunk : {std::size_t{1}, std::size_t{7}, std::size_t{64}, std::size_t{512}})
        for (const Model* m : {&*one, &*two, &*three, &*unpacked})
            expect_same_bits(want, last_logits(*m, tokens, chunk, chunk < 64 ? first : 0), path + ", chunks of " + std::to_string(chunk) + ", threads " + std::to_string(m->info().n_threads) + (m == &*unpacked ? ", not packed" : ""));
    // decode_all computes every position in one go; its last row is the same.
    std::vector<float> all;
    auto s = two->new_session();
    ASSERT_TRUE(s->decode_all(tokens, all).ok());
    expect_same_bits(want, {all.end() - static_cast<std::ptrdiff_t>(want.size()), all.end()}, path + ", all positions");
}

// 300 tokens: past a span of attention (256), so that merging takes part.
TEST(Invariance, TinyModels) {
    for (const char* name : {"llama-q4_0.gguf", "llama-q5_k.gguf", "qwen2-q4_0.gguf"})
        if (!QUERN_TEST_SLOW || name == std::string_view("llama-q4_0.gguf")) check_model(tiny(name), 300);
}

TEST(Invariance, Smollm2) {
    const auto model = test::smollm2();
    if (!model) GTEST_SKIP() << test::kNoSmollm2;
    if (QUERN_TEST_SLOW) check_model(*model, 40);
    else check_model(*model, 530, 450);   // spans of attention end at 512, as do the largest steps
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

struct Tiers { KvType type; std::int32_t tail; };
// 300 tokens: a span and more are quantized, steps of 64 and 512 are longer than any ring.
constexpr Tiers kAllTiers[] = {{KvType::q4, -1}, {KvType::two_tier, 33}, {KvType::q8, -1}, {KvType::two_tier, 64}, {KvType::q8, 100}};
constexpr auto kTiers = std::span(kAllTiers).first(QUERN_TEST_SLOW ? 2 : std::size(kAllTiers));

TEST(Invariance, QuantizedCaches) {
    for (const char* name : {"llama-q4_0.gguf", "qwen2-q4_0.gguf"})
        for (const Tiers& tiers : kTiers) {
            if (QUERN_TEST_SLOW && name != std::string_view("llama-q4_0.gguf")) continue;
            const std::string what = std::string(name) + ", type " + std::to_string(int(tiers.type)) + ", tail " + std::to_string(tiers.tail);
            std::vector<float> want;
            for (const int threads : {1, 2, 3}) {
                auto model = load(tiny(name), threads, 0, true, tiers.type, tiers.tail);
                ASSERT_TRUE(model.ok()) << model.error().message;
                const auto tokens = random_tokens(300, model->info().n_vocab);
                if (want.empty()) {
                    want = last_logits(*model, tokens, tokens.size());
                    auto exact = load(tiny(name), 1);
                    EXPECT_NE(want, last_logits(*exact, tokens, tokens.size())) << what << ": nothing was rounded";
                }
                for (const std::size_t chunk : {std::size_t{1}, std::size_t{7}, std::size_t{64}, std::size_t{512}})
                    expect_same_bits(want, last_logits(*model, tokens, chunk), what + ", chunks of " + std::to_string(chunk) + ", threads " + std::to_string(threads));
            }
        }
}

// A tail longer than the text: the same bits as F16, whose kernels see the same positions in the same spans.
TEST(Invariance, AnExactTailIsExact) {
    auto f16 = load(tiny("llama-q4_0.gguf"), 2), tail = load(tiny("llama-q4_0.gguf"), 2, 0, true, KvType::q4, 300);
    ASSERT_TRUE(f16.ok() && tail.ok());
    const auto tokens = random_tokens(300, f16->info().n_vocab);
    expect_same_bits(last_logits(*f16, tokens, 300), last_logits(*tail, tokens, 50), "tail 300");
}

// The last token of what is left is run again, which may need what has migrated since.
TEST(Invariance, LogitsAfterTruncation) {
    const GenerateOptions o{.sampler = {.temperature = 0}, .max_tokens = 6, .ignore_end_of_generation = true};
    for (const Tiers& tiers : kTiers) {
        auto model = load(tiny("llama-q4_0.gguf"), 2, 0, true, tiers.type, tiers.tail);
        ASSERT_TRUE(model.ok());
        const auto tokens = random_tokens(200, model->info().n_vocab);
        for (std::uint32_t keep = 200 - 40; keep > 0; keep = keep > 8 ? keep - 8 : keep - 1) {
            auto s = model->new_session();
            ASSERT_TRUE(s->decode(tokens).ok());
            ASSERT_TRUE(s->truncate(keep).ok());
            const auto got = s->generate({}, o);
            s = model->new_session();
            const auto want = s->generate(std::span(tokens).first(keep), o);
            ASSERT_TRUE(got.ok() && want.ok());
            EXPECT_EQ(got->tokens, want->tokens) << "kept " << keep << ", type " << int(tiers.type) << ", tail " << tiers.tail;
        }
    }
}

// Rolled back by every amount: within what the ring holds, across the border between the tiers, and to nothing.
TEST(Invariance, TruncateAcrossTheTiers) {
    for (const Tiers& tiers : kTiers) {
        auto model = load(tiny("llama-q4_0.gguf"), 2, 0, true, tiers.type, tiers.tail);
        ASSERT_TRUE(model.ok());
        const auto tokens = random_tokens(260, model->info().n_vocab), other = random_tokens(90, 100);
        const auto want = last_logits(*model, tokens, 260);
        for (const std::uint32_t keep : {259u, 258u, 250u, 240u, 225u, 224u, 192u, 160u, 100u, 31u, 1u}) {
            for (const std::size_t step : {std::size_t{1}, std::size_t{90}}) {
                auto s = model->new_session();
                ASSERT_TRUE(s->decode(std::span(tokens).first(keep)).ok());
                for (std::size_t i = 0; i < other.size(); i += step) ASSERT_TRUE(s->decode(std::span(other).subspan(i, step)).ok());
                ASSERT_TRUE(s->truncate(keep).ok());
                ASSERT_TRUE(s->decode(std::span(tokens).subspan(keep)).ok());
                expect_same_bits(want, {s->logits().begin(), s->logits().end()}, "kept " + std::to_string(keep) + ", tail " + std::to_string(tiers.tail));
            }
            if (keep != 160 && keep != 1) continue;
            auto s = model->new_session();   // token by token and back by a few at a time
            ASSERT_TRUE(s->decode(std::span(tokens).first(keep)).ok());
            for (std::size_t i = keep; i < tokens.size(); ++i) {
                ASSERT_TRUE(s->decode(std::span(other).first(i % 9)).ok());
                ASSERT_TRUE(s->truncate(static_cast<std::uint32_t>(i)).ok());
                ASSERT_TRUE(s->decode(std::span(tokens).subspan(i, 1)).ok());
            }
            expect_same_bits(want, {s->logits().begin(), s->logits().end()}, "steps back from " + std::to_string(keep));
        }
    }
}

TEST(Invariance, ForkAndFileWithTwoTiers) {
    ModelOptions o;
    o.n_threads = 2;
    o.kv_type = KvType::two_tier;
    o.kv_tail = 40;
    o.kv_sessions = 2;
    auto model = Model::load(tiny("llama-q4_0.gguf"), o);
    ASSERT_TRUE(model.ok());
    const auto tokens = random_tokens(250, model->info().n_vocab), other = random_tokens(30, 100);
    const auto want = last_logits(*model, tokens, 250);
    const std::string path = testing::TempDir() + "two_tier_session";
    for (const std::uint32_t at : {20u, 149u}) {
        auto a = model->new_session();
        ASSERT_TRUE(a->decode(std::span(tokens).first(at)).ok());
        auto b = a->fork();
        ASSERT_TRUE(b.ok()) << b.error().message;
        ASSERT_TRUE(a->decode(other).ok());   // must not reach b's ring
        ASSERT_TRUE(b->decode(std::span(tokens).subspan(at)).ok());
        expect_same_bits(want, {b->logits().begin(), b->logits().end()}, "fork at " + std::to_string(at));
        ASSERT_TRUE(b->truncate(at).ok());
        ASSERT_TRUE(b->save(path).ok());
        ASSERT_TRUE(a->restore(path).ok());
        ASSERT_TRUE(a->decode(std::span(tokens).subspan(at)).ok());
        expect_same_bits(want, {a->logits().begin(), a->logits().end()}, "file at " + std::to_string(at));
    }
    // What the file has need not be run.
    engine::Sequence saved(*Internals::of(*model).executor, 200), restored(*Internals::of(*model).executor, 200);
    for (const std::uint32_t n : {1u, 16u, 33u, 150u}) {
        saved.truncate(0);
        ASSERT_TRUE(saved.append(std::span(tokens).first(n)).ok() && saved.run().ok());
        ASSERT_TRUE(saved.save(path, 7, "").ok() && restored.restore(path, 7, nullptr).ok());
        EXPECT_EQ(restored.n_run(), (n - 1) / 16 * 16);
    }
    std::remove(path.c_str());
}

TEST(Invariance, SessionsBeyondTheExactTierAreRefused) {
    ModelOptions o;
    o.n_threads = 1;
    o.kv_type = KvType::two_tier;
    o.kv_tail = 32;
    for (const std::uint32_t sessions : {1u, 2u}) {
        o.kv_sessions = sessions;
        auto model = Model::load(tiny("llama-q4_0.gguf"), o);
        ASSERT_TRUE(model.ok());
        const auto tokens = random_tokens(100, model->info().n_vocab);
        auto a = model->new_session(), b = model->new_session();
        ASSERT_TRUE(a->decode(tokens).ok());
        const Status st = b->decode(tokens);
        ASSERT_EQ(st.ok(), sessions == 2);
        if (!st) {
            EXPECT_NE(st.error().message.find("kv_sessions"), std::string::npos) << st.error().message;
        } else {
            expect_same_bits({a->logits().begin(), a->logits().end()}, {b->logits().begin(), b->logits().end()}, "two sessions");
        }
    }
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
