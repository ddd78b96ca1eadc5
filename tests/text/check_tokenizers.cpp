// SPDX-License-Identifier: Apache-2.0
#include "tests/text/check_tokenizers.h"

#include <array>

#include "engine/text/unicode.h"
#include "tests/text/tiny_vocab.h"

namespace quern::test {

namespace {

struct Subject {
    std::shared_ptr<const text::Tokenizer> tokenizer;
    bool lossless;
};

const std::vector<Subject>& subjects() {
    static const std::vector<Subject> all = [] {
        std::vector<Subject> out;
        for (const auto* pre : {"default", "gpt-2", "smollm", "llama-bpe", "qwen2", "qwen35", "deepseek-llm",
                                "deepseek-coder", "deepseek-v3", "falcon", "tekken", "gpt-4o", "bloom", "viking",
                                "bailingmoe", "seed-coder"}) {
            out.push_back({*make_tokenizer(byte_level_spec(pre)), true});
        }
        out.push_back({*make_tokenizer(holey_byte_level_spec()), false});
        out.push_back({*make_tokenizer(spm_spec()), false});
        out.push_back({*make_tokenizer(bert_spec()), false});
        return out;
    }();
    return all;
}

/// Tokens are in range, streaming equals decoding, and what can come back does.
std::string check_text(const text::Tokenizer& t, bool lossless, std::string_view text, bool parse_special) {
    const auto ids = t.encode(text, {false, parse_special});
    if (!ids) return "encode fails: " + ids.error().message;
    for (const text::Token id : *ids) {
        if (id < 0 || static_cast<std::size_t>(id) >= t.n_vocab()) return "token out of range";
        if (!parse_special && t.is_control(id) && id != t.vocab().unk) return "plain text became a control token";
    }
    if (lossless && t.decode(*ids, true) != text) return "decode(encode(text)) is not the text";
    return "";
}

std::string check_stream(std::shared_ptr<const text::Tokenizer> t, std::string_view text) {
    const auto ids = t->encode(text);
    text::StreamDecoder stream(t, true);
    std::string all;
    std::vector<std::size_t> cuts;
    for (const text::Token id : *ids) {
        all += stream.push(id);
        cuts.push_back(all.size());
    }
    all += stream.flush();
    for (const std::size_t at : cuts) {
        if (cuts_character(all, at)) return "the stream gave part of a character";
    }
    return all == t->decode(*ids) ? "" : "the stream differs from decode()";
}

}  // namespace

bool cuts_character(std::string_view text, std::size_t at) {
    for (std::size_t back = 1; back <= 3 && back <= at; ++back) {
        if (text::decode_utf8(text.substr(at - back)).size > back) return true;
    }
    return false;
}

std::string check_tokenizers(std::span<const std::byte> input) {
    if (input.empty()) return "";
    const auto choice = std::to_integer<std::size_t>(input[0]);
    const auto rest = input.subspan(1);
    if (choice < 0x80) {
        const Subject& s = subjects()[choice % subjects().size()];
        const std::string_view text(reinterpret_cast<const char*>(rest.data()), rest.size());
        for (const bool parse_special : {false, true}) {
            if (auto wrong = check_text(*s.tokenizer, s.lossless, text, parse_special); !wrong.empty()) return wrong;
        }
        return check_stream(s.tokenizer, text);
    }
    const auto file = gguf::File::parse(rest, "input");
    if (!file) return "";
    const auto t = text::Tokenizer::create(*file);
    if (!t) return t.error().message.empty() ? "an error without a message" : "";
    const std::string sample = "Hello hello, 中文\xFF <|end|></s> 123";
    for (const bool parse_special : {false, true}) {
        if (auto wrong = check_text(**t, false, sample, parse_special); !wrong.empty()) return wrong;
    }
    return check_stream(*t, sample);
}

}  // namespace quern::test
