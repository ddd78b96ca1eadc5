// SPDX-License-Identifier: Apache-2.0
// SentencePiece-style BPE (Llama 1 and 2, Mistral, Gemma, Phi-3): characters merged by the score of the result, with
// byte tokens for characters that the vocabulary lacks. No words: the whole text is one.
#include <algorithm>
#include <array>

#include "engine/text/encoder.h"
#include "engine/text/merge.h"
#include "engine/text/unicode.h"

namespace quern::text {

namespace {

class Spm final : public Encoder {
public:
    explicit Spm(const Vocab& v) : vocab_(v) {
        bytes_.fill(v.unk);
        for (std::size_t i = 0; i < v.size(); ++i) {
            const int byte = v.byte_value(static_cast<Token>(i));
            if (byte >= 0) bytes_[static_cast<std::size_t>(byte)] = static_cast<Token>(i);
        }
    }

    Status encode(std::string_view raw, std::vector<Token>& out) const override {
        const std::string text = escape_spaces(raw);
        Merger<float> merger;
        auto& symbols = merger.symbols();
        symbols.reserve(text.size());
        for (std::uint32_t at = 0; at < text.size();) {
            const std::string_view rest = std::string_view(text).substr(at, 4);
            const std::uint32_t size = std::max(1u, decode_utf8(rest).size);
            symbols.push_back({at, size, -1, -1, find(rest.substr(0, size))});
            at += size;
        }
        merger.link();
        merger.run([&](const Symbol& a, const Symbol& b) -> std::optional<Merged<float>> {
            const Token t = find(std::string_view(text).substr(a.begin, a.size + b.size));
            if (t == kNoToken) return std::nullopt;
            return Merged<float>{-vocab_.scores[static_cast<std::size_t>(t)], t};
        });
        for (const Symbol& s : symbols) {
            if (s.size == 0) continue;
            if (s.token != kNoToken) {
                out.push_back(s.token);
                continue;
            }
            for (const char c : std::string_view(text).substr(s.begin, s.size)) {
                const Token t = bytes_[static_cast<std::uint8_t>(c)];
                if (t != kNoToken) out.push_back(t);
            }
        }
        return {};
    }

private:
    /// Control and byte tokens are not found: the text "</s>" must not end an answer.
    Token find(std::string_view piece) const {
        const Token t = vocab_.find(piece);
        return t != kNoToken && vocab_.is_ordinary(t) ? t : kNoToken;
    }

    const Vocab& vocab_;
    std::array<Token, 256> bytes_;
};

}  // namespace

Result<std::unique_ptr<Encoder>> make_spm(const Vocab& vocab) {
    return std::unique_ptr<Encoder>(std::make_unique<Spm>(vocab));
}

}  // namespace quern::text
