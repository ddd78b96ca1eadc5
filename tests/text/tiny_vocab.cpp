// SPDX-License-Identifier: Apache-2.0
#include "tests/text/tiny_vocab.h"

#include <algorithm>
#include <cstdlib>

#include "engine/text/unicode.h"

namespace quern::test {

using text::TokenType;

text::Token VocabSpec::add(std::string text, TokenType type, float score) {
    tokens.push_back(std::move(text));
    types.push_back(static_cast<std::int32_t>(type));
    if (model == "llama") scores.push_back(score);
    return static_cast<text::Token>(tokens.size() - 1);
}

text::Token VocabSpec::id(std::string_view text) const {
    const auto it = std::find(tokens.begin(), tokens.end(), text);
    return it == tokens.end() ? text::kNoToken : static_cast<text::Token>(it - tokens.begin());
}

std::vector<std::byte> VocabSpec::bytes() const {
    gguf::Writer w;
    w.add("general.architecture", "llama");
    if (!model.empty()) w.add("tokenizer.ggml.model", model);
    if (pre) w.add("tokenizer.ggml.pre", *pre);
    const auto views = [](const auto& v) { return std::vector<std::string_view>(v.begin(), v.end()); };
    if (!tokens.empty()) w.add_array("tokenizer.ggml.tokens", std::span<const std::string_view>(views(tokens)));
    if (!scores.empty()) w.add_array("tokenizer.ggml.scores", std::span<const float>(scores));
    if (!types.empty()) w.add_array("tokenizer.ggml.token_type", std::span<const std::int32_t>(types));
    if (!merges.empty()) w.add_array("tokenizer.ggml.merges", std::span<const std::string_view>(views(merges)));
    if (extra) extra(w);
    auto bytes = w.to_bytes();
    if (!bytes) std::abort();                  // a wrong test, not a wrong Quern
    return *std::move(bytes);
}

namespace {

VocabSpec byte_level_without(const std::string& pre, const std::vector<int>& missing) {
    VocabSpec s;
    s.pre = pre;
    for (int b = 0; b < 256; ++b) {
        if (std::find(missing.begin(), missing.end(), b) != missing.end()) continue;
        std::string piece;
        text::append_utf8(piece, text::char_of_byte(static_cast<std::uint8_t>(b)));
        s.add(piece);
    }
    for (const auto* m : {"h e", "l l", "ll o", "he llo", "Ġ hello", "a a", "aa aa", "Ġ Ġ", "ã ģ", "ãģ Ĥ"}) {
        std::string joined = m;
        joined.erase(joined.find(' '), 1);
        s.merges.emplace_back(m);
        s.add(joined);
    }
    s.add("<|end|>", TokenType::control);
    s.add("<|bos|>", TokenType::control);
    s.add("<tool>", TokenType::user_defined);
    s.extra = [end = s.id("<|end|>"), bos = s.id("<|bos|>")](gguf::Writer& w) {
        w.add("tokenizer.ggml.eos_token_id", static_cast<std::uint32_t>(end));
        w.add("tokenizer.ggml.bos_token_id", static_cast<std::uint32_t>(bos));
    };
    return s;
}

}  // namespace

VocabSpec byte_level_spec(const std::string& pre) { return byte_level_without(pre, {}); }
VocabSpec holey_byte_level_spec() { return byte_level_without("gpt-2", {0x04, 0xFF}); }

VocabSpec spm_spec() {
    VocabSpec s;
    s.model = "llama";
    s.add("<unk>", TokenType::unknown);
    s.add("<s>", TokenType::control);
    s.add("</s>", TokenType::control);
    constexpr char hex[] = "0123456789ABCDEF";
    for (unsigned b = 0; b < 256; ++b) {
        s.add(std::string("<0x") + hex[b >> 4] + hex[b & 15] + ">", TokenType::byte);
    }
    float score = -1;
    for (const auto* piece : {"he", "ll", "llo", "hello", "▁hello", "▁▁", "aa", "</s", "s>"}) {
        s.add(piece, TokenType::normal, score--);
    }
    s.add("▁", TokenType::normal, -50);
    for (char c = 'a'; c <= 'z'; ++c) s.add(std::string(1, c), TokenType::normal, -60);
    for (const auto* piece : {"<", "/", ">", "é"}) s.add(piece, TokenType::normal, -60);
    s.add("<tool>", TokenType::user_defined);
    return s;
}

VocabSpec bert_spec() {
    VocabSpec s;
    s.model = "bert";
    for (const auto* t : {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}) s.add(t, TokenType::control);
    for (const auto* t : {"▁un", "want", "ed", "▁want", "▁run", "ning", "▁cafe", "▁!", "▁,", "▁中", "▁文",
                          "▁a", "a"}) {
        s.add(t);
    }
    return s;
}

Result<std::shared_ptr<const text::Tokenizer>> make_tokenizer(const VocabSpec& spec) {
    const auto bytes = spec.bytes();
    auto file = gguf::File::parse(bytes, "tiny.gguf");
    if (!file) return std::move(file).error();
    return text::Tokenizer::create(*file);
}

}  // namespace quern::test
