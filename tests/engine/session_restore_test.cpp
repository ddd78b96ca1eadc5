// SPDX-License-Identifier: Apache-2.0
// Sessions saved and restored: they go on to the bit, and a file that does not fit harms nothing.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "engine/api/model_impl.h"
#include "formats/hash.h"
#include "tests/support/edit_gguf.h"
#include "tests/support/models.h"

namespace quern {
namespace {

namespace fs = std::filesystem;

class SessionRestore : public testing::Test {
protected:
    void SetUp() override {
        folder_ = fs::temp_directory_path() / ("quern-restore-" + std::to_string(::getpid()));
        fs::remove_all(folder_);
        fs::create_directories(folder_);
        file_ = (folder_ / "a.session").string();
        tiny_ = (test::tiny_dir() / "llama-q4_0.gguf").string();
    }
    void TearDown() override { fs::remove_all(folder_); }

    static std::vector<Token> random_tokens(std::size_t n, std::uint32_t seed) {
        std::mt19937 rng(seed);
        std::vector<Token> out(n);
        for (Token& t : out) t = static_cast<Token>(rng() % 512);
        return out;
    }
    static std::vector<float> logits(const Session& s) { return {s.logits().begin(), s.logits().end()}; }
    std::string bytes() const { return test::read_text(file_); }
    void write(const std::string& text) const { std::ofstream(file_, std::ios::binary) << text; }

    fs::path folder_;
    std::string file_, tiny_;
};

TEST_F(SessionRestore, GoesOnToTheBit) {
    const GenerateOptions o{.sampler = {.seed = 4}, .max_tokens = 20, .ignore_end_of_generation = true};
    struct Kind { KvType kv; std::int32_t tail; };
    const auto check = [&](Kind k, std::size_t n) {
        SCOPED_TRACE(testing::Message() << n << " tokens, type " << int(k.kv) << " tail " << k.tail);
        ModelOptions one{.n_threads = 1, .kv_type = k.kv}, two{.n_threads = 2, .kv_type = k.kv};
        one.kv_tail = two.kv_tail = k.tail;
        two.kv_sessions = 2;
        std::vector<Token> first;
        std::vector<float> after;
        GenerateResult want;
        {
            auto m = Model::load(tiny_, one);
            ASSERT_TRUE(m.ok());
            auto s = m->new_session();
            ASSERT_TRUE(s->decode(random_tokens(n, 3)).ok());
            after = logits(*s);
            ASSERT_TRUE(s->save(file_, "some").ok());
            want = *s->generate({}, o);
        }
        auto m = Model::load(tiny_, two);
        auto s = m->new_session();
        ASSERT_TRUE(s->decode(random_tokens(5, 9)).ok());
        std::string note = "old";
        const Status st = s->restore(file_, &note);
        ASSERT_TRUE(st.ok()) << st.error().message;
        EXPECT_EQ(note, "some");
        EXPECT_EQ(s->tokens().size(), n);
        EXPECT_EQ(logits(*s), after);
        EXPECT_EQ(s->generate({}, o)->tokens, want.tokens) << n;
        // A generated text ends with a token that has not been run.
        ASSERT_TRUE(s->save(file_).ok());
        auto t = m->new_session();
        ASSERT_TRUE(t->restore(file_).ok());
        EXPECT_TRUE(std::ranges::equal(t->tokens(), s->tokens()));
        EXPECT_EQ(t->generate({}, o)->tokens, s->generate({}, o)->tokens);
    };
    for (const Kind k : {Kind{KvType::f16, -1}, Kind{KvType::q4, 0}, Kind{KvType::q8, 20}})
        for (const std::size_t n : {1u, 15u, 16u, 17u, 50u, 64u, 100u}) check(k, n);
}

TEST_F(SessionRestore, AnEmptySessionToo) {
    auto m = Model::load(tiny_, {});
    ASSERT_TRUE(m->new_session()->save(file_, "n").ok());
    auto s = m->new_session();
    ASSERT_TRUE(s->decode(random_tokens(5, 9)).ok());
    ASSERT_TRUE(s->restore(file_).ok());
    EXPECT_TRUE(s->tokens().empty() && s->logits().empty());
}

TEST_F(SessionRestore, WhatDoesNotFitHarmsNothing) {
    auto m = Model::load(tiny_, {.n_ctx = 128});
    auto saved = m->new_session();
    ASSERT_TRUE(saved->decode(random_tokens(40, 3)).ok());
    ASSERT_TRUE(saved->save(file_).ok());
    const std::string good = bytes();
    const auto mine = random_tokens(30, 8);

    const auto refused = [&](Model& model, std::uint32_t n_ctx, Errc code, const char* words) {
        auto s = model.new_session(n_ctx);
        ASSERT_TRUE(s->decode(mine).ok());
        const auto before = logits(*s);
        const std::uint32_t n_free = Internals::of(model).executor->pages().n_free();
        std::string note = "mine";
        const Status st = s->restore(file_, &note);
        ASSERT_FALSE(st.ok()) << words;
        EXPECT_EQ(st.error().code, code) << st.error().message;
        EXPECT_NE(st.error().message.find(words), std::string::npos) << st.error().message;
        EXPECT_NE(st.error().message.find(code == Errc::context_full && !n_ctx ? "page" : file_), std::string::npos) << st.error().message;
        EXPECT_TRUE(std::ranges::equal(s->tokens(), mine));
        EXPECT_EQ(logits(*s), before);
        EXPECT_EQ(note, "mine");
        EXPECT_EQ(Internals::of(model).executor->pages().n_free(), n_free);
        const Token t = 3;
        EXPECT_TRUE(s->decode({&t, 1}).ok());
    };
    refused(*m, 32, Errc::context_full, "has 40 tokens, the context holds 32");
    auto f32 = Model::load(tiny_, {.n_ctx = 128, .kv_type = KvType::f32});
    refused(*f32, 0, Errc::bad_file, "another format");
    auto other = Model::load(test::GgufEdit(tiny_).set("general.name", "another").write("restore"), {.n_ctx = 128});
    ASSERT_TRUE(other.ok());
    refused(*other, 0, Errc::bad_file, "another model");
    auto small = Model::load(tiny_, {.n_ctx = 64});
    refused(*small, 0, Errc::context_full, "no page left for 40 tokens");
    write(good.substr(0, good.size() - 1));
    refused(*m, 0, Errc::bad_file, "bytes");
    std::string bad = good;
    bad[good.size() / 2] ^= 1;
    write(bad);
    refused(*m, 0, Errc::bad_file, "damaged");
    write("");
    refused(*m, 0, Errc::bad_file, "cut short");
    fs::remove(file_);
    refused(*m, 0, Errc::io, "a.session");
    EXPECT_FALSE(saved->save((folder_ / "none" / "a").string()).ok());
}

// A file made by hand may hold any keys and values, with a checksum that fits; other sessions must not see them.
TEST_F(SessionRestore, AForgedFileReachesNoOtherSession) {
    auto m = Model::load(tiny_, {}), plain = Model::load(tiny_, {.prefix_cache = false});
    const auto text = random_tokens(40, 3);
    auto saved = plain->new_session();
    ASSERT_TRUE(saved->decode(text).ok());
    ASSERT_TRUE(saved->save(file_).ok());
    std::string forged = bytes();
    const std::size_t front = (64 + 4 * 40 + 63) / 64 * 64, page = Internals::of(*m).executor->pages().shape().page_bytes();
    ASSERT_EQ(forged.size(), front + 2 * page + 8);
    for (std::size_t i = front; i < front + 2 * page; ++i) forged[i] = 0x11;
    const auto raw = std::as_bytes(std::span(forged));
    std::uint64_t h = hash_bytes(raw.first(front));
    for (std::size_t i = 0; i < 2; ++i) h = hash_bytes(raw.subspan(front + i * page, page), h);
    std::memcpy(forged.data() + front + 2 * page, &h, 8);
    write(forged);

    auto s = m->new_session();
    ASSERT_TRUE(s->restore(file_).ok());
    EXPECT_NE(logits(*s), logits(*saved)) << "the forgery has to show, else this tests nothing";
    ASSERT_TRUE(s->decode(random_tokens(30, 5)).ok());
    auto fork = s->fork();
    ASSERT_TRUE(fork->decode(random_tokens(30, 6)).ok());
    auto victim = m->new_session();
    ASSERT_TRUE(victim->decode(text).ok());
    EXPECT_EQ(logits(*victim), logits(*saved));
    ASSERT_TRUE(s->truncate(0).ok());
    ASSERT_TRUE(s->decode(text).ok());
    EXPECT_EQ(logits(*s), logits(*saved));
}

}  // namespace
}  // namespace quern
