// SPDX-License-Identifier: Apache-2.0
// What a vocabulary must and must not contain; each bad file is refused with its key, and what to do.
#include "engine/text/vocab.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/text/tiny_vocab.h"

namespace quern::text {
namespace {

using test::VocabSpec;

Result<Vocab> load(const VocabSpec& spec) {
    const auto bytes = spec.bytes();
    auto file = gguf::File::parse(bytes, "tiny.gguf");
    if (!file) return std::move(file).error();
    return Vocab::load(*file);
}

void expect_error(const VocabSpec& spec, std::initializer_list<std::string_view> parts) {
    const auto t = test::make_tokenizer(spec);
    ASSERT_FALSE(t.ok());
    for (const auto part : parts) {
        EXPECT_NE(t.error().message.find(part), std::string::npos)
            << "'" << part << "' is not in: " << t.error().message;
    }
    EXPECT_NE(t.error().message.find("tiny.gguf"), std::string::npos) << t.error().message;
}

/// The spec with one more entry.
template <class F>
VocabSpec with(VocabSpec spec, F entry) {
    spec.extra = [before = spec.extra, entry](gguf::Writer& w) {
        if (before) before(w);
        entry(w);
    };
    return spec;
}

TEST(Vocab, ReadsWhatTheFileSays) {
    const VocabSpec spec = test::byte_level_spec("qwen2");
    const auto v = load(spec);
    ASSERT_TRUE(v.ok()) << v.error().message;
    EXPECT_EQ(v->model, "gpt2");
    EXPECT_EQ(v->pre, "qwen2");
    EXPECT_EQ(v->size(), spec.tokens.size());
    EXPECT_EQ(v->eos, spec.id("<|end|>"));
    EXPECT_EQ(v->bos, spec.id("<|bos|>"));
    EXPECT_EQ(v->unk, kNoToken);
    EXPECT_FALSE(v->add_bos);
    EXPECT_EQ(v->end_of_generation, std::vector<Token>{spec.id("<|end|>")});
    EXPECT_EQ(v->find("hello"), spec.id("hello"));
    EXPECT_EQ(v->find("absent"), kNoToken);
    EXPECT_TRUE(v->is_ordinary(spec.id("hello")));
    EXPECT_FALSE(v->is_ordinary(spec.id("<|end|>")));
}

TEST(Vocab, OutlivesTheFileAndCopies) {
    Vocab copy;
    {
        const auto v = load(test::byte_level_spec("gpt-2"));
        ASSERT_TRUE(v.ok());
        copy = *v;
    }
    EXPECT_EQ(copy.pieces[static_cast<std::size_t>(copy.find("hello"))], "hello");
}

TEST(Vocab, SentencePieceDefaults) {
    const auto v = load(test::spm_spec());
    ASSERT_TRUE(v.ok()) << v.error().message;
    EXPECT_EQ(v->unk, 0);
    EXPECT_EQ(v->bos, 1);
    EXPECT_EQ(v->eos, 2);
    EXPECT_TRUE(v->add_bos);
    EXPECT_FALSE(v->add_eos);
    EXPECT_TRUE(v->add_space_prefix);
    EXPECT_EQ(v->end_of_generation, std::vector<Token>{2});
    EXPECT_EQ(v->byte_value(3 + 0x0A), 0x0A);
    EXPECT_EQ(v->byte_value(1), -1);
}

TEST(Vocab, BertFindsItsTokensByName) {
    const auto v = load(test::bert_spec());
    ASSERT_TRUE(v.ok()) << v.error().message;
    EXPECT_EQ(v->pad, 0);
    EXPECT_EQ(v->unk, 1);
    EXPECT_EQ(v->cls, 2);
    EXPECT_EQ(v->bos, 2);
    EXPECT_EQ(v->sep, 3);
    EXPECT_EQ(v->mask, 4);
    EXPECT_TRUE(v->end_of_generation.empty());
}

TEST(Vocab, WellKnownNamesEndAnAnswerAndBecomeControlTokens) {
    VocabSpec spec = test::byte_level_spec("gpt-2");
    const Token im_end = spec.add("<|im_end|>"), eot = spec.add("<|eot_id|>"), fim = spec.add("<|fim_prefix|>");
    const auto v = load(spec);
    ASSERT_TRUE(v.ok()) << v.error().message;
    EXPECT_EQ(v->eot, eot);                    // first in the list of names
    EXPECT_EQ(v->fim_pre, fim);
    EXPECT_EQ(v->end_of_generation, (std::vector<Token>{spec.id("<|end|>"), im_end, eot}));
    for (const Token t : {im_end, eot, fim}) EXPECT_FALSE(v->is_ordinary(t));
}

TEST(Vocab, HarmonyEndIsNotTheEndOfTheAnswer) {
    VocabSpec spec = test::byte_level_spec("gpt-4o");
    const Token ret = spec.add("<|return|>", TokenType::control), call = spec.add("<|call|>", TokenType::control);
    spec.extra = nullptr;                      // no eos_token_id
    const auto v = load(spec);
    ASSERT_TRUE(v.ok()) << v.error().message;
    EXPECT_EQ(v->end_of_generation, (std::vector<Token>{ret, call}));
}

TEST(Vocab, LlamaThreeAddsBosUnlessTheFileSaysNo) {
    EXPECT_TRUE(load(test::byte_level_spec("llama-bpe"))->add_bos);
    EXPECT_FALSE(load(with(test::byte_level_spec("llama-bpe"), [](gguf::Writer& w) {
                     w.add("tokenizer.ggml.add_bos_token", false);
                 }))->add_bos);
    VocabSpec none = test::byte_level_spec("llama-bpe");
    none.extra = nullptr;                      // no bos token to add
    EXPECT_FALSE(load(none)->add_bos);
}

TEST(Vocab, MinusOneIsNoToken) {
    for (const bool as_unsigned : {true, false}) {
        const auto v = load(with(test::spm_spec(), [as_unsigned](gguf::Writer& w) {
            if (as_unsigned) {
                w.add("tokenizer.ggml.padding_token_id", std::uint32_t{0xFFFFFFFF});
            } else {
                w.add("tokenizer.ggml.padding_token_id", std::int32_t{-1});
            }
        }));
        ASSERT_TRUE(v.ok()) << v.error().message;
        EXPECT_EQ(v->pad, kNoToken);
    }
}

TEST(BadVocab, ModelMissingOrUnknown) {
    VocabSpec s = test::spm_spec();
    s.model = "";
    expect_error(s, {"tokenizer.ggml.model"});
    s.model = "rwkv";
    expect_error(s, {"tokenizer.ggml.model is 'rwkv'", "gpt2", "llama", "bert"});
}

TEST(BadVocab, UnknownPreTokenizerIsNamedWithTheKnownOnes) {
    expect_error(test::byte_level_spec("qwen17"), {"tokenizer.ggml.pre", "'qwen17'", "llama-bpe", "smollm", "qwen2"});
}

TEST(BadVocab, TokensMissingOrOfAnotherType) {
    VocabSpec s = test::spm_spec();
    s.tokens.clear();
    expect_error(s, {"tokenizer.ggml.tokens"});
    expect_error(with(s, [](gguf::Writer& w) { w.add("tokenizer.ggml.tokens", "a"); }), {"tokenizer.ggml.tokens"});
    expect_error(with(s, [](gguf::Writer& w) {
                     w.add_array("tokenizer.ggml.tokens", std::span<const std::string_view>{});
                 }),
                 {"tokenizer.ggml.tokens has 0 entries"});
}

TEST(BadVocab, OverlongToken) {
    VocabSpec s = test::spm_spec();
    s.tokens[5] = std::string(kMaxPieceBytes + 1, 'x');
    s.types[5] = 1;
    expect_error(s, {"tokenizer.ggml.tokens[5]", "16385 bytes", "the limit is 16384"});
}

TEST(BadVocab, DuplicateToken) {
    VocabSpec s = test::spm_spec();
    const Token first = s.id("he");
    s.add("he");
    expect_error(s, {"tokenizer.ggml.tokens[" + std::to_string(s.tokens.size() - 1) + "] 'he'",
                     "entry " + std::to_string(first)});
}

TEST(BadVocab, ScoresOfOneByteEach) {
    VocabSpec s = test::spm_spec();
    s.scores.clear();
    const std::vector<std::uint8_t> scores(s.tokens.size(), 1);
    expect_error(with(s, [&scores](gguf::Writer& w) {
                     w.add_array("tokenizer.ggml.scores", std::span<const std::uint8_t>(scores));
                 }),
                 {"tokenizer.ggml.scores", "array of", "convert the model again"});
    expect_error(s, {"tokenizer.ggml.scores is missing"});
}

TEST(BadVocab, ScoresTooFewOrNotNumbers) {
    VocabSpec s = test::spm_spec();
    s.scores.pop_back();
    expect_error(s, {"tokenizer.ggml.scores", std::to_string(s.tokens.size() - 1) + " entries",
                     "has " + std::to_string(s.tokens.size())});
    s.scores.push_back(std::nanf(""));
    expect_error(s, {"tokenizer.ggml.scores[" + std::to_string(s.tokens.size() - 1) + "] is not a number"});
}

TEST(BadVocab, TokenTypesOfOneByteEach) {
    VocabSpec s = test::spm_spec();
    s.types.clear();
    const std::vector<std::uint8_t> types(s.tokens.size(), 1);
    expect_error(with(s, [&types](gguf::Writer& w) {
                     w.add_array("tokenizer.ggml.token_type", std::span<const std::uint8_t>(types));
                 }),
                 {"tokenizer.ggml.token_type", "array of", "convert the model again"});
}

TEST(BadVocab, TokenTypesTooManyOrOutOfRange) {
    VocabSpec s = test::spm_spec();
    s.types[7] = 7;
    expect_error(s, {"tokenizer.ggml.token_type[7] is 7", "0 to 6"});
    s.types[7] = -1;
    expect_error(s, {"tokenizer.ggml.token_type[7] is -1"});
    s.types[7] = 6;
    s.types.push_back(1);
    expect_error(s, {"tokenizer.ggml.token_type", std::to_string(s.types.size()) + " entries"});
}

TEST(BadVocab, ByteTokenThatIsNoByte) {
    for (const auto* text : {"<0x-1>", "<0x100>", "<0xG0>", "0x00", "<0x0>"}) {
        VocabSpec s = test::spm_spec();
        s.tokens[3] = text;                    // was <0x00>
        expect_error(s, {"tokenizer.ggml.tokens[3]", text, "byte token"});
    }
}

TEST(BadVocab, SpecialIdOutsideTheVocabulary) {
    for (const auto* key :
         {"bos_token_id", "eos_token_id", "eot_token_id", "eom_token_id", "unknown_token_id", "seperator_token_id",
          "padding_token_id", "cls_token_id", "mask_token_id", "fim_pre_token_id", "fim_suf_token_id",
          "fim_mid_token_id", "fim_pad_token_id", "fim_rep_token_id", "fim_sep_token_id"}) {
        const VocabSpec s = test::spm_spec();
        const auto n = static_cast<std::uint32_t>(s.tokens.size());
        const std::string full = std::string("tokenizer.ggml.") + key;
        expect_error(with(s, [&](gguf::Writer& w) { w.add(full, n); }),
                     {full, "is " + std::to_string(n), "has " + std::to_string(n) + " tokens"});
        expect_error(with(s, [&](gguf::Writer& w) { w.add(full, std::int32_t{-2}); }), {full, "is -2"});
        expect_error(with(s, [&](gguf::Writer& w) { w.add(full, "1"); }), {full});
    }
}

TEST(BadVocab, TokenToAddThatIsNotSet) {
    VocabSpec s = test::byte_level_spec("gpt-2");
    s.extra = [](gguf::Writer& w) { w.add("tokenizer.ggml.add_bos_token", true); };
    expect_error(s, {"tokenizer.ggml.add_bos_token is true", "tokenizer.ggml.bos_token_id is not set"});
    s.extra = [](gguf::Writer& w) { w.add("tokenizer.ggml.add_bos_token", "yes"); };
    expect_error(s, {"tokenizer.ggml.add_bos_token"});
}

TEST(BadVocab, Merges) {
    VocabSpec s = test::byte_level_spec("gpt-2");
    s.merges.push_back("h z");
    const std::string last = "tokenizer.ggml.merges[" + std::to_string(s.merges.size() - 1) + "]";
    expect_error(s, {last, "'h z'", "tokenizer.ggml.tokens does not have"});
    for (const auto* merge : {"hello", "", " ", "h "}) {
        s.merges.back() = merge;
        expect_error(s, {last, "two pieces"});
    }
    s.merges.clear();
    expect_error(s, {"tokenizer.ggml.merges"});
}

}  // namespace
}  // namespace quern::text
