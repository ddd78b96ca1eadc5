// SPDX-License-Identifier: Apache-2.0
// Draft models: greedy text is the same token for token, sampled text has the same distribution, and what is measured decides.
#include "engine/run/draft.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "engine/text/vocab.h"
#include "quern/quern.hpp"
#include "tests/engine/counting_new.h"
#include "tests/support/edit_gguf.h"
#include "tests/support/models.h"

namespace quern {
namespace {

using engine::Candidate;
using engine::Chain;
using engine::StepCosts;

/// What a chi-square statistic of a right sampler stays below but once in a million seeds (Wilson and Hilferty); seeds are fixed.
double chi_square_bound(double df) {
    const double z = 4.753, a = 2 / (9 * df);
    return df * std::pow(1 - a + z * std::sqrt(a), 3);
}

/// Of counts against probabilities; cells that are expected less than five times are taken together.
void expect_drawn_from(const std::map<std::uint64_t, double>& p, const std::map<std::uint64_t, std::uint64_t>& counts, std::uint64_t n, const std::string& what) {
    double statistic = 0, rest = 0, rest_seen = 0;
    int cells = 0;
    const auto add = [&](double expected, double seen) {
        statistic += (seen - expected) * (seen - expected) / expected;
        ++cells;
    };
    for (const auto& [cell, seen] : counts) EXPECT_TRUE(p.count(cell) && p.at(cell) > 0) << what << ": drew " << cell << " " << seen << " times, which cannot come";
    for (const auto& [cell, probability] : p) {
        const double expected = probability * static_cast<double>(n);
        const auto at = counts.find(cell);
        const double seen = at == counts.end() ? 0 : static_cast<double>(at->second);
        if (expected >= 5) add(expected, seen);
        else rest += expected, rest_seen += seen;
    }
    if (rest >= 5) add(rest, rest_seen);
    ASSERT_GT(cells, 1) << what;
    EXPECT_LT(statistic, chi_square_bound(cells - 1)) << what << ", " << cells << " cells";
}

std::vector<float> logits_of(std::uint64_t seed, std::size_t n, double spread) {
    engine::Random random(seed);
    std::vector<float> out(n);
    for (float& v : out) v = static_cast<float>(spread * random.uniform());
    return out;
}

struct Pair {
    std::string name;
    SamplerOptions target, draft;
};
std::vector<Pair> pairs() {
    const SamplerOptions off{.temperature = 1, .top_k = 100, .top_p = 1, .min_p = 0};
    SamplerOptions warm = off, cut = off, narrow = off, penalized = off;
    warm.temperature = 1.7f;
    cut.top_k = 9, cut.top_p = 0.9f, cut.temperature = 0.7f;
    narrow.top_k = 3;
    penalized.repeat_penalty = 1.3f, penalized.presence_penalty = 0.5f;
    penalized.logit_bias = {{4, 1.5f}, {7, -INFINITY}};
    return {{"all tokens", off, off}, {"hotter draft", off, warm}, {"cut", cut, cut}, {"draft with fewer", cut, narrow}, {"draft with more", narrow, off}, {"penalties", penalized, penalized}};
}

TEST(Verify, HasTheTargetsDistribution) {
    constexpr std::uint64_t n = QUERN_TEST_SLOW ? 4000 : 40000;
    constexpr std::size_t n_vocab = 24;
    for (const bool alike : {true, false})
        for (const Pair& pair : pairs()) {
            const auto p = logits_of(1, n_vocab, 4), q = alike ? logits_of(1, n_vocab, 3) : logits_of(2, n_vocab, 4);
            auto target = Chain::create(pair.target, n_vocab), draft = Chain::create(pair.draft, n_vocab);
            ASSERT_TRUE(target.ok() && draft.ok());
            for (const Token t : {3, 5, 3}) target->accept(t), draft->accept(t);
            target->reserve_verify();
            std::map<std::uint64_t, double> want;
            const auto exact = target->distribution(p);
            for (const Candidate& c : *exact) want[static_cast<std::uint64_t>(c.id)] = c.p;
            std::map<std::uint64_t, std::uint64_t> counts;
            std::uint64_t kept = 0;
            double overlap = 0;
            const auto shaped = draft->distribution(q);
            const std::vector<Candidate> from(shaped->begin(), shaped->end());
            for (const Candidate& c : from)
                if (const auto at = want.find(static_cast<std::uint64_t>(c.id)); at != want.end()) overlap += std::min(c.p, at->second);
            draft->random() = engine::Random(99);
            for (std::uint64_t i = 0; i < n; ++i) {
                (void)draft->distribution(q);
                const Token guess = draft->draw();
                const auto token = target->verify(p, guess, from);
                ASSERT_TRUE(token.ok());
                ++counts[static_cast<std::uint64_t>(*token)];
                kept += *token == guess;
            }
            expect_drawn_from(want, counts, n, pair.name);
            // The most that any lossless method can keep is what the two share; five standard deviations.
            EXPECT_NEAR(static_cast<double>(kept) / n, overlap, 5 * 0.5 / std::sqrt(n)) << pair.name;
        }
}

TEST(Verify, OfOneTokenIsExact) {
    auto greedy = Chain::create({.temperature = 0}, 8);
    greedy->reserve_verify();
    const std::vector<float> logits{0, 1, 5, 2, 5, 0, 0, 0};
    for (Token guess = 0; guess < 8; ++guess) {
        const Candidate only{guess, 0, 1};
        EXPECT_EQ(*greedy->verify(logits, guess, {&only, 1}), 2);
    }
    // A guess of which the draft was sure, as lookup's are, is kept with the target's probability.
    const std::vector<float> p{std::log(0.7f), std::log(0.3f)};
    auto chain = Chain::create({.temperature = 1, .top_k = 100, .top_p = 1, .min_p = 0}, 2);
    chain->reserve_verify();
    std::map<std::uint64_t, std::uint64_t> counts;
    const Candidate only{1, 0, 1};
    for (int i = 0; i < 20000; ++i) ++counts[static_cast<std::uint64_t>(*chain->verify(p, 1, {&only, 1}))];
    expect_drawn_from({{0, 0.7}, {1, 0.3}}, counts, 20000, "sure guess");
}

TEST(TakeBack, IsAsIfTheTokensHadNeverBeenAccepted) {
    constexpr std::uint32_t n_vocab = 12;
    for (const std::int32_t last_n : {1, 3, 16, 40, -1}) {
        engine::Random random(7);
        const SamplerOptions o{.temperature = 1, .top_k = 100, .top_p = 1, .min_p = 0, .repeat_penalty = 1.2f, .frequency_penalty = 0.3f, .penalty_last_n = last_n};
        auto a = Chain::create(o, n_vocab), b = Chain::create(o, n_vocab);
        const auto logits = logits_of(3, n_vocab, 2);
        for (int round = 0; round < 60; ++round) {
            std::vector<Token> gone(random.next() % (Chain::kTakeBack + 1));
            for (Token& t : gone) {
                t = static_cast<Token>(random.next() % n_vocab);
                b->accept(t);
                if (random.next() % 3 == 0) (void)b->distribution(logits);
            }
            b->take_back(gone);
            const auto x = a->distribution(logits), y = b->distribution(logits);
            ASSERT_EQ(x->size(), y->size());
            for (std::size_t i = 0; i < x->size(); ++i) ASSERT_EQ((*x)[i].p, (*y)[i].p) << "last " << last_n << ", round " << round << ", token " << i;
            const auto t = static_cast<Token>(random.next() % n_vocab);
            a->accept(t), b->accept(t);
        }
    }
}

// ---- Whole models ----

std::string tiny(const char* name) { return (test::tiny_dir() / name).string(); }

Model load(const std::string& path, ModelOptions o = {}) {
    auto m = Model::load(path, o);
    EXPECT_TRUE(m.ok()) << m.error().message;
    return *std::move(m);
}

/// The same weights rounded more: often right, and not always.
std::string rounded(test::GgufEdit& edit) { return edit.convert_matrices(DType::Q4_0).write("draft"); }

TEST(Greedy, TheSameTokens) {
    test::GgufEdit edit(tiny("llama-q5_k.gguf"));
    const std::string near = rounded(edit);
    std::uint32_t kept = 0;
    for (const KvType kv : {KvType::f16, KvType::two_tier, KvType::q8}) {
        if (QUERN_TEST_SLOW && kv == KvType::q8) continue;
        ModelOptions mo{.n_ctx = 1024, .kv_type = kv};
        if (kv == KvType::two_tier) mo.kv_tail = 32;
        mo.kv_sessions = 4;
        const Model target = load(tiny("llama-q5_k.gguf"), mo);
        for (const std::string& path : {near, tiny("llama-q5_k.gguf"), tiny("llama-q4_0.gguf")}) {
            if (QUERN_TEST_SLOW && kv == KvType::two_tier && path != near) continue;
            const Model draft = load(path, mo);
            for (const std::uint32_t n : {0u, 1u, 6u, 15u})
                for (const float penalty : {1.0f, 1.1f}) {
                    if (penalty != 1 && n != 6) continue;
                    const std::vector<Token> prompt{5, 6, 7, 8, 9, 100, 3};
                    GenerateOptions o{.sampler = {.temperature = 0, .repeat_penalty = penalty}, .max_tokens = 150, .ignore_end_of_generation = true};
                    auto a = target.new_session(), b = target.new_session();
                    ASSERT_TRUE(b->use_draft(draft, {.n_tokens = n}).ok());
                    const auto want = a->generate(prompt, o), got = b->generate(prompt, o);
                    ASSERT_TRUE(want.ok() && got.ok()) << got.error().message;
                    EXPECT_EQ(got->tokens, want->tokens) << path << ", " << n;
                    EXPECT_EQ(got->text, want->text);
                    EXPECT_LE(got->n_accepted, got->n_guessed);
                    if (n > 0) { EXPECT_GT(got->n_guessed, 60u); }
                    kept += got->n_accepted;
                    // Both go on from where they are, beyond what was taken back: with lookup too.
                    o.lookup = true;
                    const auto more = a->generate(std::vector<Token>{11}, o), also = b->generate(std::vector<Token>{11}, o);
                    EXPECT_EQ(also->tokens, more->tokens) << path << ", " << n;
                }
        }
    }
    EXPECT_GT(kept, 1000u);
}

TEST(Greedy, ADraftOfTheSameWeightsIsAlwaysRight) {
    const Model m = load(tiny("llama-q4_0.gguf"));
    auto s = m.new_session();
    ASSERT_TRUE(s->use_draft(m, {.n_tokens = 5}).ok());
    const auto r = s->generate(std::vector<Token>{1, 2, 3}, {.sampler = {.temperature = 0}, .max_tokens = 121, .ignore_end_of_generation = true});
    ASSERT_TRUE(r.ok());
    EXPECT_EQ(r->n_guessed, 100u) << "20 steps of 5 guesses and one more token; the first comes with the prompt";
    EXPECT_EQ(r->n_accepted, 100u);
}

/// All texts of three tokens, and how likely the target alone writes them.
std::map<std::uint64_t, double> three_tokens(const Model& m, const std::vector<Token>& prompt, const SamplerOptions& o) {
    std::map<std::uint64_t, double> out;
    const auto after = [&](const std::vector<Token>& more) {
        auto s = m.new_session();
        auto chain = Chain::create(o, m.info().n_vocab);
        std::vector<Token> text = prompt;
        text.insert(text.end(), more.begin(), more.end());
        EXPECT_TRUE(s->decode(text).ok());
        for (const Token t : text) chain->accept(t);
        const auto d = chain->distribution(s->logits());
        return std::vector<Candidate>(d->begin(), d->end());
    };
    for (const Candidate& a : after({}))
        for (const Candidate& b : after({a.id}))
            for (const Candidate& c : after({a.id, b.id})) out[(static_cast<std::uint64_t>(a.id) << 40) + (static_cast<std::uint64_t>(b.id) << 20) + static_cast<std::uint64_t>(c.id)] = a.p * b.p * c.p;
    return out;
}

TEST(Sampled, TheSameDistribution) {
    test::GgufEdit edit(tiny("llama-q5_k.gguf"));
    const Model target = load(tiny("llama-q5_k.gguf"));
    const std::vector<Token> prompt{5, 6, 7, 8};
    SamplerOptions o{.temperature = 1.5f, .top_k = 5, .top_p = 0.95f, .min_p = 0, .repeat_penalty = 1.3f};
    const auto want = three_tokens(target, prompt, o);
#ifdef QUERN_TEST_SANITIZED
    constexpr std::uint64_t n = 300;
#else
    constexpr std::uint64_t n = 4000;
#endif
    for (const std::string& path : {rounded(edit), tiny("llama-q4_0.gguf")}) {
        const Model draft = load(path);
        auto s = target.new_session();
        ASSERT_TRUE(s->use_draft(draft, {.n_tokens = 2}).ok());
        std::map<std::uint64_t, std::uint64_t> counts;
        std::uint64_t guessed = 0, kept = 0;
        for (std::uint64_t seed = 0; seed < n; ++seed) {
            o.seed = seed;
            ASSERT_TRUE(s->truncate(0).ok());
            const auto r = s->generate(prompt, {.sampler = o, .max_tokens = 3, .ignore_end_of_generation = true});
            ASSERT_TRUE(r.ok());
            ++counts[(static_cast<std::uint64_t>(r->tokens[0]) << 40) + (static_cast<std::uint64_t>(r->tokens[1]) << 20) + static_cast<std::uint64_t>(r->tokens[2])];
            guessed += r->n_guessed;
            kept += r->n_accepted;
        }
        expect_drawn_from(want, counts, n, path);
        EXPECT_GE(guessed, n);
        if (path != tiny("llama-q4_0.gguf")) { EXPECT_GT(kept, n / 2) << "of a draft that is nearly the target"; }
        EXPECT_LT(kept, guessed);
        // With a number of guesses given the same seed is the same text.
        const GenerateOptions again{.sampler = {.seed = 5}, .max_tokens = 60, .ignore_end_of_generation = true};
        std::vector<Token> texts[2];
        for (auto& text : texts) {
            auto fresh = target.new_session();
            ASSERT_TRUE(fresh->use_draft(draft, {.n_tokens = 3}).ok());
            text = fresh->generate(prompt, again)->tokens;
        }
        EXPECT_EQ(texts[0], texts[1]);
    }
}

TEST(Session, WhereTheDraftOrTheTargetFindsNoRoom) {
    const Model target = load(tiny("llama-q4_0.gguf"), {.n_ctx = 64}), draft = load(tiny("llama-q4_0.gguf"), {.n_ctx = 32});
    GenerateOptions o{.sampler = {.temperature = 0}, .ignore_end_of_generation = true};
    const std::vector<Token> prompt{5, 6, 7};
    const auto want = target.new_session()->generate(prompt, o);
    for (const std::uint32_t n : {0u, 6u}) {
        auto s = target.new_session();
        ASSERT_TRUE(s->use_draft(draft, {.n_tokens = n}).ok());
        const auto r = s->generate(prompt, o);
        ASSERT_TRUE(r.ok()) << r.error().message;
        EXPECT_EQ(r->tokens, want->tokens) << "with a draft that reads half of it";
        EXPECT_EQ(r->stop_reason, StopReason::context_full);
        if (n > 0) { EXPECT_GT(r->n_guessed, 0u); }
    }
}

TEST(Session, SlidesAndForksWithADraft) {
    const Model target = load(tiny("llama-q4_0.gguf"), {.n_ctx = 160}), draft = load(tiny("llama-q4_0.gguf"), {.n_ctx = 160});
    GenerateOptions o{.sampler = {.temperature = 0}, .max_tokens = 150, .ignore_end_of_generation = true};
    const std::vector<Token> prompt{5, 6, 7};
    for (const ContextPolicy policy : {ContextPolicy::compress, ContextPolicy::slide}) {
        o.context_policy = policy;
        auto plain = target.new_session(48), s = target.new_session(48);
        ASSERT_TRUE(s->use_draft(draft, {.n_tokens = 4}).ok());
        const auto want = plain->generate(prompt, o), got = s->generate(prompt, o);
        ASSERT_TRUE(want.ok() && got.ok());
        EXPECT_GT(got->n_dropped, 0u);
        EXPECT_EQ(got->tokens, want->tokens);
        ASSERT_TRUE(s->truncate(10).ok());
        auto fork = s->fork();
        ASSERT_TRUE(fork.ok());
        const auto a = s->generate({}, o), b = fork->generate({}, o);
        EXPECT_EQ(a->tokens, b->tokens);
        EXPECT_EQ(a->n_guessed, b->n_guessed);
    }
}

TEST(Session, OnlyDraftsOfTheSameVocabulary) {
    const Model target = load(tiny("llama-q4_0.gguf"));
    auto s = target.new_session();
    const auto refuses = [&](const std::string& path, const std::string& words) {
        const Model draft = load(path);
        const Status st = s->use_draft(draft);
        ASSERT_FALSE(st.ok()) << words;
        EXPECT_EQ(st.error().code, Errc::invalid_argument);
        EXPECT_NE(st.error().message.find(words), std::string::npos) << st.error().message;
        EXPECT_NE(st.error().message.find(path), std::string::npos) << st.error().message;
    };
    auto file = gguf::File::open(tiny("llama-q4_0.gguf"));
    const auto all = file->get_string_array("tokenizer.ggml.tokens");
    std::vector<std::string_view> texts(all->begin(), all->end());
    texts[42] = "forty-two";
    test::GgufEdit other(tiny("llama-q4_0.gguf")), eos(tiny("llama-q4_0.gguf")), smaller(tiny("llama-q4_0.gguf"));
    refuses(other.set_array("tokenizer.ggml.tokens", texts).write("texts"), "the text of token 42 is 'forty-two' there");
    refuses(eos.set("tokenizer.ggml.eos_token_id", std::uint32_t{9}).write("eos"), "the id of the special token eos is 9 there and ");
    if (const auto path = test::smollm2()) refuses(*path, "there and ");
    EXPECT_FALSE(s->use_draft(target, {.n_tokens = 16}).ok());
    EXPECT_FALSE(s->use_draft(target, {.n_ctx = 1 << 30}).ok());
    EXPECT_TRUE(s->generate(std::vector<Token>{1, 2}, {.max_tokens = 3}).ok()) << "and goes on without one";
}

/// The tiny model with n more tokens, whose logits are those of its first ones.
std::string padded(test::GgufEdit& edit, std::size_t n, text::TokenType type, const std::string& name) {
    auto file = gguf::File::open(tiny("llama-q4_0.gguf"));
    const auto texts = file->get_string_array("tokenizer.ggml.tokens");
    std::vector<std::string_view> all(texts->begin(), texts->end());
    std::vector<std::string> pads;
    for (std::size_t i = 0; i < n; ++i) pads.push_back("[PAD" + std::to_string(all.size() + i) + "]");
    all.insert(all.end(), pads.begin(), pads.end());
    const auto known = file->get_int_array("tokenizer.ggml.token_type");
    std::vector<std::int32_t> types(known->begin(), known->end());
    types.resize(all.size(), static_cast<std::int32_t>(type));
    edit.set_array("tokenizer.ggml.tokens", all).set_array("tokenizer.ggml.token_type", types);
    edit.repeat_rows("token_embd.weight", n).repeat_rows("output.weight", n);
    return edit.write(name);
}

TEST(Session, PaddingOfTheVocabularyMayDiffer) {
    test::GgufEdit edit(tiny("llama-q4_0.gguf")), other(tiny("llama-q4_0.gguf"));
    const std::string path = padded(edit, 300, text::TokenType::unused, "padded");
    const Model plain = load(tiny("llama-q4_0.gguf")), more = load(path);
    ASSERT_EQ(more.info().n_vocab, plain.info().n_vocab + 300);
    const std::vector<Token> prompt{1, 2, 3};
    GenerateOptions o{.sampler = {.temperature = 0}, .max_tokens = 100, .ignore_end_of_generation = true};
    for (const bool longer_drafts : {true, false}) {
        const Model &target = longer_drafts ? plain : more, &draft = longer_drafts ? more : plain;
        auto s = target.new_session();
        const Status st = s->use_draft(draft, {.n_tokens = 5});
        ASSERT_TRUE(st.ok()) << st.error().message;
        o.sampler = {.temperature = 0};
        const auto want = target.new_session()->generate(prompt, o), got = s->generate(prompt, o);
        EXPECT_EQ(got->tokens, want->tokens);
        EXPECT_GT(got->n_accepted, 0u);
        ASSERT_TRUE(s->truncate(0).ok());
        // Half of what the longer model says is padding, if it is asked alone.
        o.sampler = {.temperature = 1, .top_k = 100, .top_p = 1, .min_p = 0, .seed = 3, .logit_bias = {{static_cast<Token>(target.info().n_vocab) - 1, -1.0f}}};
        const auto sampled = s->generate(prompt, o);
        ASSERT_TRUE(sampled.ok()) << sampled.error().message;
        EXPECT_EQ(sampled->tokens.size(), 100u);
        if (longer_drafts) { EXPECT_EQ(sampled->n_accepted, sampled->n_guessed) << "the two say the same of the tokens that both have"; }
        for (const Token t : sampled->tokens) EXPECT_LT(t, static_cast<Token>(target.info().n_vocab));
        auto fork = s->fork();
        EXPECT_TRUE(fork->generate(prompt, o).ok());
    }
    const Model real = load(padded(other, 8, text::TokenType::normal, "more"));
    const Status st = real.new_session()->use_draft(plain);
    EXPECT_NE(st.error().message.find("there are 512 tokens there and 520 here, and token 512, '[PAD512]', which only one has, is not marked as unused"), std::string::npos) << st.error().message;
}

TEST(Session, ADraftDearerThanItsModelIsNeverRun) {
    test::GgufEdit edit(tiny("llama-q4_0.gguf"));
    const Model small = load(tiny("llama-q4_0.gguf")), large = load(edit.convert_matrices(DType::F32).write("large"));
    auto witness = large.new_session();
    const auto runs_of_large = [&] { return witness->metrics().decode_runs.n_runs + witness->metrics().prefill_runs.n_runs; };
    for (const float temperature : {0.0f, 2.0f}) {
        const GenerateOptions o{.sampler = {.temperature = temperature, .top_k = 0, .top_p = 1, .min_p = 0, .seed = 1}, .max_tokens = 60, .ignore_end_of_generation = true};
        const std::vector<Token> prompt(40, 7);
        const std::uint64_t runs = runs_of_large();
        auto s = small.new_session();
        ASSERT_TRUE(s->use_draft(large).ok());
        const auto r = s->generate(prompt, o), want = small.new_session()->generate(prompt, o);
        ASSERT_TRUE(r.ok() && want.ok());
        EXPECT_EQ(r->tokens, want->tokens);
        EXPECT_EQ(r->n_guessed, 0u);
        EXPECT_EQ(runs_of_large(), runs) << "it has not even read the prompt";
        auto other = large.new_session();
        ASSERT_TRUE(other->use_draft(small).ok());
        const auto guessed = other->generate(prompt, o);
        ASSERT_TRUE(guessed.ok());
        EXPECT_GT(guessed->n_guessed, 0u) << "a cheap one is tried";
    }
}

TEST(Session, DraftingAllocatesNothing) {
#ifdef QUERN_TEST_SANITIZED
    GTEST_SKIP() << "the sanitizer brings its own operator new, which cannot be counted";
#endif
    const Model target = load(tiny("llama-q5_k.gguf")), draft = load(tiny("llama-q4_0.gguf"));
    for (const float temperature : {0.0f, 0.8f})
        for (const std::uint32_t n : {0u, 5u}) {
            auto s = target.new_session();
            ASSERT_TRUE(s->use_draft(draft, {.n_tokens = n}).ok());
            std::uint64_t first = 0, last = 0, texts = 0;
            GenerateOptions o{.sampler = {.temperature = temperature, .repeat_penalty = 1.1f}, .max_tokens = 200, .ignore_end_of_generation = true};
            o.on_text = [&](std::string_view) {
                last = test::allocation_count();
                if (++texts == 20) first = last;
                return true;
            };
            ASSERT_TRUE(s->generate(std::vector<Token>{1, 2, 3}, o).ok());
            ASSERT_GT(texts, 50u);
            EXPECT_EQ(last, first) << "temperature " << temperature << ", " << n;
        }
}

TEST(Costs, TheWidthIsTheFastest) {
    StepCosts costs;
    EXPECT_FALSE(costs.known());
    costs.ran(0, 1);
    costs.ran(4, 1.2);
    EXPECT_DOUBLE_EQ(costs.of(2), 1.1) << "between what was measured";
    EXPECT_NEAR(costs.of(6), 1.4, 1e-12) << "beyond it";
    EXPECT_EQ(costs.best(15, 0.0).n, 0u);
    EXPECT_EQ(costs.best(15, 0.9, 1.0).n, 0u) << "guesses as dear as steps";
    EXPECT_EQ(costs.best(0, 1.0).n, 0u);
    const auto best = costs.best(15, 0.9, 0.1);
    for (std::uint32_t n = 0; n <= 15; ++n) {
        double tokens = 0;
        for (std::uint32_t i = 0; i <= n; ++i) tokens += std::pow(0.9, i);
        EXPECT_LE(tokens / (costs.of(n) + n * 0.1), best.tokens_per_second + 1e-12) << n;
    }
    EXPECT_GT(best.n, 1u);
}

TEST(Costs, AFirstSlowStepIsNoExcuse) {
    StepCosts costs;
    costs.ran(0, 3);   // the machine was busy; a plain step takes 1 from here on
    double lost = 0;
    for (int i = 0; i < 200 && !costs.losing(); ++i) {
        costs.ran(4, 1.3);
        costs.won(0, 0.6);
        lost += 0.9;
    }
    EXPECT_LT(lost, 8) << "what guesses win is not held against that step";
    EXPECT_LE(costs.of(0), 1.3);
}

TEST(Costs, WhatLosesIsGivenUpAndTriedAgain) {
    StepCosts costs;
    costs.ran(0, 1);
    double time = 1;
    int tokens = 1, tries = 0;
    for (int i = 0; i < 2000; ++i, ++tokens) {
        if (costs.losing()) {
            costs.ran(0, 1);
            time += 1;
        } else {
            costs.ran(4, 1.3);
            costs.won(0, 0.6);   // never right
            time += 1.9;
            ++tries;
        }
    }
    EXPECT_GT(tries, 20) << "it may pay later";
    EXPECT_LT(time / tokens, 1.02) << "1.5% of the time, and what the first steps cost";
}

}  // namespace
}  // namespace quern
