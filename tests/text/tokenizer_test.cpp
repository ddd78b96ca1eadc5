// SPDX-License-Identifier: Apache-2.0
#include "engine/text/tokenizer.h"

#include <gtest/gtest.h>

#include <thread>

#include "tests/text/tiny_vocab.h"

namespace quern::text {
namespace {

using test::VocabSpec;
using Tokens = std::vector<Token>;

std::shared_ptr<const Tokenizer> make(const VocabSpec& spec) {
    auto t = test::make_tokenizer(spec);
    EXPECT_TRUE(t.ok()) << t.error().message;
    return t.ok() ? *t : nullptr;
}

Tokens encode(const Tokenizer& t, std::string_view text, TokenizeOptions options = {}) {
    auto r = t.encode(text, options);
    EXPECT_TRUE(r.ok()) << r.error().message;
    return r.ok() ? *r : Tokens{};
}

Tokens ids(const VocabSpec& s, std::initializer_list<std::string_view> pieces) {
    Tokens out;
    for (const auto p : pieces) out.push_back(s.id(p));
    return out;
}

TEST(Bpe, MergesByRankInsideWords) {
    const VocabSpec s = test::byte_level_spec("gpt-2");
    const auto t = make(s);
    EXPECT_EQ(encode(*t, "hello hello"), ids(s, {"hello", "Ġhello"}));
    EXPECT_EQ(encode(*t, "hell"), ids(s, {"he", "ll"}));
    EXPECT_EQ(encode(*t, "aaaaa"), ids(s, {"aaaa", "a"}));
    EXPECT_EQ(encode(*t, "あ"), ids(s, {"ãģĤ"}));
    EXPECT_EQ(encode(*t, ""), Tokens{});
}

TEST(Bpe, EveryByteStringComesBack) {
    const auto t = make(test::byte_level_spec("gpt-2"));
    std::string all;
    for (int round = 0; round < 2; ++round) {
        for (int b = 0; b < 256; ++b) all.push_back(static_cast<char>(round == 0 ? b : 255 - b));
    }
    EXPECT_EQ(t->decode(encode(*t, all)), all);
    EXPECT_EQ(encode(*t, "\xE6\x97").size(), 2u);              // half a character: a token a byte
}

TEST(Bpe, BytesWithoutToken) {
    const VocabSpec s = test::holey_byte_level_spec();
    const auto t = make(s);
    EXPECT_EQ(t->decode(encode(*t, "a\xFF"
                                   "b")),
              "a\xEF\xBF\xBD"
              "b");                            // not UTF-8: U+FFFD
    EXPECT_EQ(t->decode(encode(*t, "a\x04"
                                   "b")),
              "ab");                           // a valid character that the vocabulary cannot write
}

TEST(Bpe, IgnoreMergesTakesAWholeWord) {
    VocabSpec s = test::byte_level_spec("llama-bpe");
    const Token word = s.add("hellos");        // no merge makes it
    EXPECT_EQ(encode(*make(s), "hellos"), Tokens{word});
    s.pre = "qwen2";
    EXPECT_EQ(encode(*make(s), "hellos"), ids(s, {"hello", "s"}));
}

TEST(Bpe, NoMergeMakesAControlTokenOfPlainText) {
    VocabSpec s = test::byte_level_spec("gpt-2");
    s.merges.push_back("< /"), s.add("</");
    s.merges.push_back("s >"), s.add("s>");
    s.merges.push_back("</ s>");
    const Token eos = s.add("</s>", TokenType::control);
    const auto t = make(s);
    // One word for the pre-tokenizer is "</", then "s", then ">": take an expression that keeps them together.
    s.pre = "bloom";
    const auto whole = make(s);
    EXPECT_EQ(encode(*whole, "</s>"), ids(s, {"</", "s>"}));
    EXPECT_EQ(encode(*whole, "</s>", {false, true}), Tokens{eos});
    EXPECT_EQ(encode(*t, "</s>", {false, true}), Tokens{eos});
}

TEST(Special, ControlTokensOnlyWhereAsked) {
    const VocabSpec s = test::byte_level_spec("gpt-2");
    const auto t = make(s);
    const Token end = s.id("<|end|>");
    EXPECT_EQ(encode(*t, "hello<|end|>hello", {false, true}), (Tokens{s.id("hello"), end, s.id("hello")}));
    const Tokens plain = encode(*t, "hello<|end|>hello");
    EXPECT_EQ(std::count(plain.begin(), plain.end(), end), 0);
    EXPECT_EQ(t->decode(plain), "hello<|end|>hello");
    EXPECT_EQ(encode(*t, "<|end|><|end|>", {false, true}), (Tokens{end, end}));
    EXPECT_EQ(encode(*t, "<|en", {false, true}).size(), 4u);
}

TEST(Special, UserDefinedTokensAlways) {
    VocabSpec s = test::byte_level_spec("gpt-2");
    const Token longer = s.add("<tool>>", TokenType::user_defined);
    const auto t = make(s);
    const Token tool = s.id("<tool>");
    EXPECT_EQ(encode(*t, "hello<tool>hello"), (Tokens{s.id("hello"), tool, s.id("hello")}));
    EXPECT_EQ(encode(*t, "<tool>>"), Tokens{longer});          // longest
    EXPECT_EQ(encode(*t, "<tool>>>").front(), longer);
    EXPECT_EQ(t->decode(Tokens{tool}), "<tool>");
}

TEST(Special, AddedWhereTheModelWantsThem) {
    VocabSpec s = test::byte_level_spec("llama-bpe");
    s.extra = [before = s.extra](gguf::Writer& w) {
        before(w);
        w.add("tokenizer.ggml.add_eos_token", true);
    };
    const auto t = make(s);
    EXPECT_EQ(encode(*t, "hello", {true, false}), ids(s, {"<|bos|>", "hello", "<|end|>"}));
    EXPECT_EQ(encode(*t, "hello"), ids(s, {"hello"}));
    EXPECT_EQ(encode(*t, "", {true, false}), ids(s, {"<|bos|>", "<|end|>"}));
    const auto bert = make(test::bert_spec());
    EXPECT_EQ(encode(*bert, "want", {true, false}), ids(test::bert_spec(), {"[CLS]", "▁want", "[SEP]"}));
}

TEST(Special, PiecesOfControlTokensAreShownOnRequest) {
    const VocabSpec s = test::byte_level_spec("gpt-2");
    const auto t = make(s);
    const Token end = s.id("<|end|>");
    EXPECT_EQ(t->piece(end), "");
    EXPECT_EQ(t->piece(end, true), "<|end|>");
    EXPECT_EQ(t->piece(s.id("Ġhello")), " hello");
    EXPECT_EQ(t->piece(-1), "");
    EXPECT_EQ(t->piece(static_cast<Token>(t->n_vocab()), true), "");
    EXPECT_EQ(t->decode(Tokens{s.id("hello"), end, -7, 1 << 30}), "hello");
    EXPECT_TRUE(t->is_end_of_generation(end));
    EXPECT_TRUE(t->is_control(end));
    EXPECT_FALSE(t->is_end_of_generation(s.id("hello")));
    EXPECT_FALSE(t->is_control(-1));
    EXPECT_FALSE(t->is_control(1 << 30));
}

TEST(Spm, MergesByScoreWithByteFallback) {
    const VocabSpec s = test::spm_spec();
    const auto t = make(s);
    EXPECT_EQ(encode(*t, "hello"), ids(s, {"▁hello"}));
    EXPECT_EQ(encode(*t, " hello"), ids(s, {"▁", "▁hello"}));
    EXPECT_EQ(encode(*t, "hé"), ids(s, {"▁", "h", "é"}));
    EXPECT_EQ(encode(*t, "中"), ids(s, {"▁", "<0xE4>", "<0xB8>", "<0xAD>"}));
    EXPECT_EQ(encode(*t, "a\xFF"), ids(s, {"▁", "a", "<0xFF>"}));
    EXPECT_EQ(encode(*t, ""), Tokens{});
    for (const std::string text : {"hello", " hello ", "中 \xFF\xE6", "a<tool>b", "  x", "\n"}) {
        EXPECT_EQ(t->decode(encode(*t, text)), text);
    }
}

TEST(Spm, NoSpacePrefixWhereTheFileSaysSo) {
    VocabSpec s = test::spm_spec();
    s.extra = [](gguf::Writer& w) { w.add("tokenizer.ggml.add_space_prefix", false); };
    const auto t = make(s);
    EXPECT_EQ(encode(*t, "hello"), ids(s, {"hello"}));
    EXPECT_EQ(t->decode(ids(s, {"▁hello"})), " hello");
}

TEST(Spm, ControlAndByteTokensCannotBeSpelled) {
    const VocabSpec s = test::spm_spec();
    const auto t = make(s);
    // "</s" + ">" and "</" + "s>" would both merge to token 2, with its score of 0 before anything else.
    for (const Token token : encode(*t, "</s> <0x0A> <s> <unk>")) EXPECT_TRUE(token > 2) << token;
    EXPECT_EQ(t->decode(encode(*t, "</s> <0x0A> <s> <unk>")), "</s> <0x0A> <s> <unk>");
    EXPECT_EQ(encode(*t, "hello</s>hello", {false, true}), ids(s, {"▁hello", "</s>", "▁hello"}));
    EXPECT_EQ(t->decode(encode(*t, "hello</s>hello", {false, true}), true), "hello</s>hello");
}

TEST(Spm, UnknownWhereThereAreNoByteTokens) {
    VocabSpec s;
    s.model = "llama";
    s.add("<unk>", TokenType::unknown);
    s.add("▁"), s.add("a");
    EXPECT_EQ(encode(*make(s), "a☃"), ids(s, {"▁", "a", "<unk>", "<unk>", "<unk>"}));
}

TEST(WordPiece, NormalisesAndCutsGreedily) {
    const VocabSpec s = test::bert_spec();
    const auto t = make(s);
    EXPECT_EQ(encode(*t, "UNwanted,running"), ids(s, {"▁un", "want", "ed", "▁,", "▁run", "ning"}));
    EXPECT_EQ(encode(*t, "Caf\xC3\xA9 cafe\xCC\x81!"), ids(s, {"▁cafe", "▁cafe", "▁!"}));
    EXPECT_EQ(encode(*t, "中文 \t"), ids(s, {"▁中", "▁文"}));
    EXPECT_EQ(encode(*t, "want xyz want"), ids(s, {"▁want", "[UNK]", "▁want"}));
    EXPECT_EQ(encode(*t, "un\xE2\x80\x8Bwant\xFF"), ids(s, {"▁un", "want"}));  // format characters and bad bytes go
    EXPECT_EQ(t->decode(encode(*t, "unwanted running")), "unwanted running");
}

TEST(WordPiece, CasedModelsKeepCaseAndAccents) {
    VocabSpec s = test::bert_spec();
    s.extra = [](gguf::Writer& w) { w.add("tokenizer.ggml.normalizer.lowercase", false); };
    EXPECT_EQ(encode(*make(s), "Want caf\xC3\xA9"), ids(s, {"[UNK]", "[UNK]"}));
}

TEST(Tokenizer, RefusesATextOverTheLimit) {
    const auto t = make(test::byte_level_spec("gpt-2"));
    // Only the length is looked at, so no such text need exist.
    const auto r = t->encode(std::string_view("x", kMaxTextBytes + 1));
    ASSERT_FALSE(r.ok());
    EXPECT_NE(r.error().message.find("1073741825 bytes"), std::string::npos) << r.error().message;
}

TEST(Tokenizer, LongRunsComeBack) {
    // A quarter of a megabyte of one thing is where a quadratic step shows: this test then runs for an hour.
    const std::shared_ptr<const Tokenizer> all[] = {make(test::byte_level_spec("gpt-2")), make(test::spm_spec())};
    for (const auto& t : all) {
        for (const std::string unit : {"a", " ", "\n", "7", "中", "🙂", "hello ", "<", "<|end|>", "\xFF"}) {
            std::string text;
            while (text.size() < (1u << 18)) text += unit;
            EXPECT_EQ(t->decode(encode(*t, text, {false, true}), true), text) << unit;
        }
    }
    const auto bert = make(test::bert_spec());
    EXPECT_EQ(encode(*bert, std::string(1 << 18, 'a')).size(), 1u << 18);
    EXPECT_EQ(encode(*bert, std::string(1 << 18, 'z')), Tokens{1});
}

TEST(Tokenizer, OneServesManyThreads) {
    const auto t = make(test::byte_level_spec("llama-bpe"));
    std::string text;
    for (int i = 0; i < 200; ++i) text += "hello 123 中文\n<|end|>" + std::to_string(i);
    const Tokens expected = encode(*t, text, {true, true});
    std::vector<Tokens> got(4);
    std::vector<std::thread> threads;
    for (Tokens& g : got) threads.emplace_back([&] { g = *t->encode(text, {true, true}); });
    for (auto& th : threads) th.join();
    for (const Tokens& g : got) EXPECT_EQ(g, expected);
}

}  // namespace
}  // namespace quern::text
