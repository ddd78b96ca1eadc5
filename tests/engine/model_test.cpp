// SPDX-License-Identifier: Apache-2.0
// Loading: what is refused and how it is said; memory limits; sessions at their borders; no allocation while decoding.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <numbers>

#include "engine/kv/tiers.h"
#include "engine/model/hparams.h"
#include "engine/plan/plan.h"
#include "quern/quern.hpp"
#include "tests/engine/counting_new.h"
#include "tests/support/edit_gguf.h"
#include "tests/support/models.h"

namespace quern {
namespace {

std::string tiny() { return (test::tiny_dir() / "llama-q4_0.gguf").string(); }

void expect_refused(const std::string& path, Errc code, std::initializer_list<const char*> words,
                    const ModelOptions& o = {}) {
    auto m = Model::load(path, o);
    ASSERT_FALSE(m.ok());
    EXPECT_EQ(static_cast<int>(m.error().code), static_cast<int>(code)) << m.error().message;
    for (const char* w : words)
        EXPECT_NE(m.error().message.find(w), std::string::npos) << "'" << w << "' is not in: " << m.error().message;
}

TEST(Load, RefusesWhatItCannotRun) {
    expect_refused("/no/such/file.gguf", Errc::io, {"/no/such/file.gguf"});
    expect_refused(test::GgufEdit(tiny()).set("general.architecture", "mamba").write("arch"), Errc::unsupported,
                   {"'mamba'", "llama, qwen2, qwen3"});
    test::GgufEdit e(tiny());
    expect_refused(e.drop("blk.1.ffn_up.weight").write("missing"), Errc::bad_file,
                   {"'blk.1.ffn_up.weight' is missing", "'llama'"});
    expect_refused(test::GgufEdit(tiny()).reshape("blk.0.attn_k.weight", {256, 64}, DType::Q4_0).write("shape"),
                   Errc::bad_file, {"'blk.0.attn_k.weight' is [64 rows x 256]", "[128 rows x 256]"});
    expect_refused(test::GgufEdit(tiny()).reshape("blk.0.attn_norm.weight", {256}, DType::Q4_0).write("vec"),
                   Errc::unsupported, {"'blk.0.attn_norm.weight'", "Q4_0"});
    expect_refused(test::GgufEdit(tiny()).drop("token_embd.weight").write("embd"), Errc::bad_file,
                   {"'token_embd.weight' is missing"});
}

TEST(Load, RefusesHyperParametersOutOfRange) {
    struct Case {
        const char* key;
        std::uint64_t value;
        const char* words;
    };
    for (const Case& c :
         {Case{"llama.attention.head_count", 0, "head_count' is 0"},
          Case{"llama.attention.head_count_kv", 0, "head_count_kv' is 0"},
          Case{"llama.attention.head_count_kv", 3, "is not a multiple"},
          Case{"llama.block_count", 1ull << 31, "block_count' is 2147483648"},
          Case{"llama.block_count", 0, "block_count' is 0"},
          Case{"llama.embedding_length", 0, "embedding_length' is 0"},
          Case{"llama.rope.dimension_count", 128, "dimension_count' is 128"},
          Case{"llama.rope.dimension_count", 33, "odd"}, Case{"llama.context_length", 0, "context_length' is 0"},
          Case{"llama.attention.key_length", 1u << 20, "key_length' is 1048576"},
          Case{"llama.attention.head_count", 5, "not a multiple of head_count 5"}}) {
        auto m = Model::load(test::GgufEdit(tiny()).set(c.key, c.value).write("hp"));
        ASSERT_FALSE(m.ok()) << c.key;
        EXPECT_NE(m.error().message.find(c.words), std::string::npos) << c.key << ": " << m.error().message;
    }
    expect_refused(test::GgufEdit(tiny()).set("llama.rope.scaling.type", "longrope").write("rope"), Errc::unsupported,
                   {"'longrope'", "yarn"});
    expect_refused(
        test::GgufEdit(tiny()).set_array<std::uint32_t>("llama.attention.head_count", {4, 4, 4}).write("per"),
        Errc::bad_file, {"3 entries for 2 layers"});
    expect_refused(test::GgufEdit(tiny()).set("llama.attention.layer_norm_rms_epsilon", std::nanf("")).write("eps"),
                   Errc::bad_file, {"layer_norm_rms_epsilon"});
}

TEST(Load, TakesPerLayerHeadCountsAndOptionalBiases) {
    test::GgufEdit e(tiny());
    e.set_array<std::uint32_t>("llama.attention.head_count", {4, 4})
        .set_array<std::uint32_t>("llama.attention.head_count_kv", {2, 2})
        .add_f32("blk.0.attn_q.bias", std::vector<float>(256, 0.0f));
    auto plain = Model::load(tiny()), edited = Model::load(e.write("perlayer"));
    ASSERT_TRUE(plain.ok() && edited.ok()) << (edited.ok() ? "" : edited.error().message);
    const std::vector<Token> tokens{1, 2, 3, 4, 5};
    auto a = plain->new_session(), b = edited->new_session();
    ASSERT_TRUE(a->decode(tokens).ok() && b->decode(tokens).ok());
    EXPECT_TRUE(std::equal(a->logits().begin(), a->logits().end(), b->logits().begin()));
    auto biased =
        Model::load(test::GgufEdit(tiny()).add_f32("blk.0.attn_q.bias", std::vector<float>(256, 0.5f)).write("bias"));
    ASSERT_TRUE(biased.ok());
    auto c = biased->new_session();
    ASSERT_TRUE(c->decode(tokens).ok());
    EXPECT_FALSE(std::equal(a->logits().begin(), a->logits().end(), c->logits().begin()));
}

TEST(Load, OptionsOutOfRange) {
    ModelOptions o;
    o.n_batch = 0;
    expect_refused(tiny(), Errc::invalid_argument, {"n_batch is 0"}, o);
    o = {};
    o.n_threads = -1;
    expect_refused(tiny(), Errc::invalid_argument, {"n_threads is -1"}, o);
    o.n_threads = 0;
    o.n_threads_batch = 5000;
    expect_refused(tiny(), Errc::invalid_argument, {"n_threads_batch is 5000"}, o);
    o.n_threads_batch = 0;
    o.numa = static_cast<Numa>(7);
    expect_refused(tiny(), Errc::invalid_argument, {"numa"}, o);
    o.numa = Numa::off;
    o.tune = static_cast<Tune>(-1);
    expect_refused(tiny(), Errc::invalid_argument, {"tune"}, o);
    o.tune = Tune::off;
    o = {};
    o.isa = "avx9";
    auto m = Model::load(tiny(), o);
    ASSERT_FALSE(m.ok());
    EXPECT_NE(m.error().message.find("avx9"), std::string::npos);
}

TEST(Load, MemoryLimit) {
    ModelOptions o;
    auto m = Model::load(tiny(), o);
    ASSERT_TRUE(m.ok());
    const MemoryReport r = m->memory_report();
    EXPECT_EQ(r.total, r.weights_packed + r.weights_mapped + r.kv_capacity + r.buffers);
    EXPECT_EQ(r.kv_capacity, r.kv_bytes_per_token * 512);
    EXPECT_EQ(r.kv_bytes_per_token, 2u * 2 * 2 * 64 * 2);  // layers, K and V, KV heads, head size, bytes
    EXPECT_NE(r.to_string().find("KV cache"), std::string::npos);

    o.memory_limit = r.total;
    EXPECT_TRUE(Model::load(tiny(), o).ok());
    o.memory_limit = r.total - 1;
    expect_refused(tiny(), Errc::out_of_memory,
                   {"does not fit the memory limit", "weights", "KV cache", "512 tokens", "raise the limit"}, o);
    o.allow_smaller_context = true;
    std::string said;
    o.on_log = [&](LogLevel level, std::string_view text) {
        if (level == LogLevel::warning) said = text;
    };
    auto small = Model::load(tiny(), o);
    ASSERT_TRUE(small.ok()) << small.error().message;
    EXPECT_LT(small->info().n_ctx, 512u);
    EXPECT_LE(small->memory_report().total, o.memory_limit);
    EXPECT_NE(said.find("context shrunk to " + std::to_string(small->info().n_ctx)), std::string::npos) << said;
    o.memory_limit = 1000;
    expect_refused(tiny(), Errc::out_of_memory, {"does not fit"}, o);
}

/// Without packing, every matrix counts as mapped, once, with the bytes that it has in the file; vectors are read as float.
TEST(Load, MemoryWithoutPacking) {
    for (const char* name : {"llama-q4_0.gguf", "qwen2-q4_0.gguf"}) {
        const std::string path = (test::tiny_dir() / name).string();
        auto file = gguf::File::open(path);
        ASSERT_TRUE(file.ok());
        std::uint64_t matrices = 0, vectors = 0;
        for (const gguf::Tensor& t : file->tensors()) {
            if (t.n_dims > 1) matrices += t.data.size();
            else vectors += t.n_elements() * sizeof(float);
        }
        ModelOptions o;
        o.pack = false;
        auto m = Model::load(path, o);
        ASSERT_TRUE(m.ok()) << m.error().message;
        const MemoryReport r = m->memory_report();
        EXPECT_EQ(r.weights_mapped, matrices) << name;
        EXPECT_EQ(r.weights_packed, vectors) << name;
        o.memory_limit = r.total;  // what is estimated before loading is what is used
        EXPECT_TRUE(Model::load(path, o).ok());
        o.memory_limit = r.total - 1;
        EXPECT_FALSE(Model::load(path, o).ok());
    }
}

TEST(Load, ProgressCanCancel) {
    ModelOptions o;
    int calls = 0;
    o.on_progress = [&](const LoadProgress& p) {
        EXPECT_LE(p.done, p.total);
        return ++calls < 3;
    };
    expect_refused(tiny(), Errc::cancelled, {"cancelled"}, o);
    EXPECT_EQ(calls, 3);
}

TEST(Session, BordersAreErrorsAndNothingIsLost) {
    ModelOptions o;
    o.n_ctx = 64;
    auto m = Model::load(tiny(), o);
    ASSERT_TRUE(m.ok());
    EXPECT_FALSE(m->new_session(65).ok());
    auto s = m->new_session(20);
    ASSERT_TRUE(s.ok());
    EXPECT_TRUE(s->logits().empty());
    ASSERT_TRUE(s->decode(std::vector<Token>(18, 7)).ok());
    const std::vector<float> before(s->logits().begin(), s->logits().end());
    const Status full = s->decode(std::vector<Token>(3, 7));
    ASSERT_FALSE(full.ok());
    EXPECT_EQ(full.error().code, Errc::context_full);
    EXPECT_NE(full.error().message.find("3 tokens do not fit: the context holds 20 and 18 are in use"),
              std::string::npos)
        << full.error().message;
    for (const Token bad : {-1, 512, 1 << 30}) {
        const Status st = s->decode({&bad, 1});
        ASSERT_FALSE(st.ok());
        EXPECT_EQ(st.error().code, Errc::invalid_argument);
    }
    EXPECT_EQ(s->tokens().size(), 18u);
    EXPECT_TRUE(std::equal(before.begin(), before.end(), s->logits().begin()));
    EXPECT_FALSE(s->truncate(19).ok());

    // Pages are shared among sessions: what one holds another cannot have, and gets back when it ends.
    auto big = m->new_session(48);
    EXPECT_EQ(big->decode(std::vector<Token>(48, 3)).error().code, Errc::context_full);
    EXPECT_EQ(m->memory_report().kv_used, 2 * 16 * m->memory_report().kv_bytes_per_token);
    ASSERT_TRUE(s->truncate(0).ok());
    EXPECT_EQ(m->memory_report().kv_used, 0u);
    EXPECT_TRUE(big->decode(std::vector<Token>(48, 3)).ok());
}

TEST(Session, DecodingAllocatesNothing) {
#ifdef QUERN_TEST_SANITIZED
    GTEST_SKIP() << "the sanitizer brings its own operator new, which cannot be counted";
#endif
    for (const bool pack : {true, false}) {
        auto m = Model::load(tiny(), {.pack = pack});
        ASSERT_TRUE(m.ok());
        auto s = m->new_session();
        ASSERT_TRUE(s->decode(std::vector<Token>(30, 7)).ok());
        const auto before = test::allocation_count();
        for (Token t = 0; t < 300; ++t) ASSERT_TRUE(s->decode({&t, 1}).ok());  // past a page, past a span
        EXPECT_EQ(test::allocation_count(), before) << "pack " << pack;
    }
}

TEST(Generate, StopsForEachReason) {
    ModelOptions mo;
    mo.n_ctx = 48;
    auto m = Model::load(tiny(), mo);
    ASSERT_TRUE(m.ok());
    const std::vector<Token> prompt{5, 6, 7};
    GenerateOptions o;
    o.sampler.seed = 3;
    o.ignore_end_of_generation = true;
    o.max_tokens = 5;
    auto s = m->new_session();
    auto r = s->generate(prompt, o);
    ASSERT_TRUE(r.ok()) << r.error().message;
    EXPECT_EQ(r->stop_reason, StopReason::max_tokens);
    EXPECT_EQ(r->tokens.size(), 5u);
    EXPECT_EQ(s->tokens().size(), 8u);
    auto again = m->new_session()->generate(prompt, o);
    EXPECT_EQ(r->tokens, again->tokens) << "same seed, same text";
    o.max_tokens = -1;
    auto full = s->generate({}, o);
    ASSERT_TRUE(full.ok());
    EXPECT_EQ(full->stop_reason, StopReason::context_full);
    EXPECT_EQ(s->tokens().size(), 48u);
    auto s2 = m->new_session();
    o.on_text = [&](std::string_view) { return false; };
    EXPECT_FALSE(s2->generate(prompt, o).ok()) << "the other session holds all pages: an error, not a crash";
    ASSERT_TRUE(s->truncate(0).ok());
    EXPECT_EQ(s2->generate(prompt, o)->stop_reason, StopReason::cancelled);
    EXPECT_EQ(m->new_session()->generate({}, o).error().code, Errc::invalid_argument);
}

TEST(Generate, PrefillCanBeCancelledAtEachStep) {
    ModelOptions mo;
    mo.n_batch = 4;
    auto m = Model::load(tiny(), mo);
    ASSERT_TRUE(m.ok());
    for (const std::uint32_t at : {4u, 8u, 10u}) {
        GenerateOptions o;
        o.on_prefill = [&](std::uint32_t done, std::uint32_t all) {
            EXPECT_EQ(all, 10u);
            return done < at;
        };
        auto s = m->new_session();
        auto r = s->generate(std::vector<Token>(10, 7), o);
        ASSERT_TRUE(r.ok()) << r.error().message;
        EXPECT_EQ(r->stop_reason, StopReason::cancelled);
        EXPECT_EQ(r->n_generated, 0u);
        EXPECT_EQ(s->tokens().size(), 10u);
    }
}

TEST(Generate, ContinuingEqualsOneRun) {
    auto m = Model::load(tiny());
    GenerateOptions o;
    o.sampler.temperature = 0;
    o.ignore_end_of_generation = true;
    const std::vector<Token> prompt{5, 6, 7};
    o.max_tokens = 40;
    const auto whole = m->new_session()->generate(prompt, o);
    auto s = m->new_session();
    o.max_tokens = 15;
    auto a = s->generate(prompt, o);
    o.max_tokens = 25;
    auto b = s->generate({}, o);
    auto joined = a->tokens;
    joined.insert(joined.end(), b->tokens.begin(), b->tokens.end());
    EXPECT_EQ(joined, whole->tokens);
}

TEST(Plan, BuffersAliveTogetherNeverOverlap) {
    std::vector<engine::BufferLife> b;
    std::uint32_t state = 12345;
    for (int i = 0; i < 200; ++i) {
        state = state * 1664525 + 1013904223;
        const std::uint32_t first = (state >> 8) % 100;
        b.push_back({1 + (state >> 4) % 5000, first, first + (state >> 16) % 20});
    }
    const std::size_t total = engine::place_buffers(b);
    std::size_t sum = 0;
    for (std::size_t i = 0; i < b.size(); ++i) {
        sum += b[i].bytes;
        EXPECT_EQ(b[i].offset % 64, 0u);
        EXPECT_LE(b[i].offset + b[i].bytes, total);
        for (std::size_t j = 0; j < i; ++j) {
            const bool together = b[i].first <= b[j].last && b[j].first <= b[i].last;
            const bool apart = b[i].offset + b[i].bytes <= b[j].offset || b[j].offset + b[j].bytes <= b[i].offset;
            EXPECT_TRUE(!together || apart) << i << ", " << j;
        }
    }
    EXPECT_LT(total, sum / 2) << "memory is used again";
}

TEST(Rope, AnglesOfEachScaling) {
    engine::RopeParams p;
    p.n_rot = 64;
    p.original_n_ctx = 8192;
    const auto plain = engine::rope_angles(p, {});
    ASSERT_EQ(plain.freq.size(), 32u);
    EXPECT_DOUBLE_EQ(plain.freq[0], 1.0);
    EXPECT_NEAR(plain.freq[16], 0.01, 1e-15);
    p.scaling = engine::RopeScaling::linear;
    p.factor = 4;
    EXPECT_DOUBLE_EQ(engine::rope_angles(p, {}).freq[16], plain.freq[16] / 4);
    // llama3: waves shorter than original / high_freq_factor stay, longer than original / low_freq_factor are
    // stretched.
    p.scaling = engine::RopeScaling::llama3;
    p.factor = 8;
    p.freq_base = 500000;
    const auto l3 = engine::rope_angles(p, {});
    EXPECT_DOUBLE_EQ(l3.freq[0], 1.0);
    EXPECT_NEAR(l3.freq[31], std::pow(500000.0, -62.0 / 64) / 8, 1e-18);
    // YaRN: fast pairs stay, slow ones are interpolated; magnitude 1 + 0.1 ln(factor).
    p.scaling = engine::RopeScaling::yarn;
    p.freq_base = 10000;
    p.factor = 4;
    p.original_n_ctx = 4096;
    const auto yarn = engine::rope_angles(p, {});
    EXPECT_DOUBLE_EQ(yarn.freq[0], 1.0);
    EXPECT_NEAR(yarn.freq[31], plain.freq[31] / 4, 1e-12);
    EXPECT_DOUBLE_EQ(yarn.magnitude, 1 + 0.1 * std::log(4.0));
    // rope_freqs divides each pair's angle.
    p = {};
    p.n_rot = 4;
    const std::vector<float> factors{1.0f, 8.0f};
    EXPECT_DOUBLE_EQ(engine::rope_angles(p, factors).freq[1], 0.01 / 8);
}

TEST(PagePool, CountsReferences) {
    engine::KvShape shape;
    shape.head_dim = 64;
    shape.n_head_kv = {2, 2};
    auto p = engine::PagePool::create(shape, 40);
    ASSERT_TRUE(p.ok());
    EXPECT_EQ((*p)->n_pages(), 3u);
    std::vector<std::uint32_t> table;
    table.reserve(4);
    EXPECT_FALSE((*p)->take(4, table));
    EXPECT_TRUE(table.empty());
    ASSERT_TRUE((*p)->take(3, table));
    (*p)->add_reference(table[1]);
    (*p)->release(table[1]);
    EXPECT_EQ((*p)->n_free(), 0u);
    for (const auto page : table) (*p)->release(page);
    EXPECT_EQ((*p)->n_free(), 3u);
    EXPECT_FALSE(engine::PagePool::create(shape, 0).ok());
}

// The shape of a 7B model with 8 KV heads. Nothing is allocated.
TEST(KvPlan, BytesOfEachFormat) {
    engine::KvShape shape;
    shape.head_dim = 128;
    shape.n_head_kv.assign(32, 8);
    using kernels::KvFormat;
    EXPECT_EQ(engine::KvPlan(shape, KvFormat::F16, 0, 1, 4096).bytes(), 536'870'912u);
    EXPECT_EQ(engine::KvPlan(shape, KvFormat::F32, 0, 1, 4096).bytes(), 2 * 536'870'912u);
    const engine::KvPlan two(shape, KvFormat::Q4, 256, 1, 4096);
    EXPECT_EQ(two.n_tokens, 3840u);
    EXPECT_EQ(two.n_exact_tokens, 16u + 256 + 32 + 16);
    EXPECT_LE(two.bytes(), 180'000'000u);
    // 8 KV heads of 32 layers: a group of 32 tokens in 4480 bytes; F16 in 512 bytes a token.
    EXPECT_EQ(two.bytes(), 256u * (3840 / 32 * 4480ull + 320 * 512ull));
    EXPECT_EQ(engine::KvPlan(shape, KvFormat::Q4, 256, 3, 4096).bytes() - two.bytes(), 2 * 320ull * 512 * 256);
    // Texts that begin alike share: spare rings beside several sequences, none beside one.
    EXPECT_EQ(engine::KvPlan(shape, KvFormat::Q4, 256, 1, 4096, -1).bytes(), two.bytes());
    EXPECT_EQ(engine::KvPlan(shape, KvFormat::Q4, 256, 2, 4096, -1).bytes() - two.bytes(), (320 + 304) * 512ull * 256);
    EXPECT_EQ(engine::KvPlan(shape, KvFormat::Q4, 256, 8, 4096, -1).bytes() - two.bytes(), (7 * 320 + 2 * 304) * 512ull * 256);
    EXPECT_EQ(engine::KvPlan(shape, KvFormat::Q4, 256, 1, 4096, 3).bytes() - two.bytes(), 3 * 304 * 512ull * 256);
    EXPECT_EQ(engine::KvPlan(shape, KvFormat::Q8, 0, 1, 4096).bytes(), 256u * (4096 / 32 * 8512ull + 64 * 512ull));
    // Shorter than the tail: the ring holds everything, and the other pool its least page.
    EXPECT_EQ(engine::KvPlan(shape, KvFormat::Q4, 256, 1, 100).bytes(), 256u * (4480ull + (16 + 112) * 512));
}

TEST(KvTiers, BoundaryFollowsFromPositions) {
    for (const std::uint32_t tail : {0u, 1u, 32u, 256u, 300u}) {
        const engine::KvTiers t = engine::KvTiers::make(tail, 4096);
        for (std::int32_t p = 0; p < 1000; ++p) {
            const std::int32_t b = t.boundary(p), exact = p + 1 - b;
            EXPECT_EQ(b % 32, 0);
            EXPECT_TRUE(b == 0 || exact >= static_cast<std::int32_t>(tail));
            EXPECT_LT(exact, static_cast<std::int32_t>(tail) + 32);
            EXPECT_TRUE(t.fits_ring(p, 1) && t.fits_ring(p, engine::KvTiers::kSlack));
        }
        EXPECT_EQ(t.boundary(-1), 0);
    }
}

TEST(Preset, EachLoads) {
    for (const Preset p : {Preset::chat_short, Preset::chat_long, Preset::document, Preset::code}) {
        const PresetOptions row = preset_options(p);
        ModelOptions o{.n_threads = 1, .n_ctx = 64, .kv_type = row.kv_type};
        o.kv_tail = row.kv_tail;
        o.kv_spare_tails = row.kv_spare_tails;
        auto m = Model::load((test::tiny_dir() / "llama-q4_0.gguf").string(), o);
        EXPECT_TRUE(m.ok()) << int(p) << ": " << m.error().message;
    }
    EXPECT_EQ(preset_options(Preset::chat_long).kv_type, KvType::two_tier);
    EXPECT_EQ(preset_options(Preset::chat_long).kv_spare_tails, 1) << "an answer is taken back";
}

}  // namespace
}  // namespace quern
