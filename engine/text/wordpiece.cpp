// SPDX-License-Identifier: Apache-2.0
// WordPiece (BERT): normalised words, each cut greedily into the longest pieces. In GGUF a piece that starts a word
// begins with U+2581, and the ## of the others is gone.
#include <utf8proc.h>

#include <array>

#include "engine/text/encoder.h"
#include "engine/text/prefix_matcher.h"
#include "engine/text/unicode.h"

namespace quern::text {

namespace {

utf8proc_category_t category(std::uint32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }
std::uint32_t lower(std::uint32_t c) {
    return static_cast<std::uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}

// Categories as BERT's tokenizer groups them.
bool is_removed(std::uint32_t c) {
    const auto k = category(c);
    return c == 0 || c == 0xFFFD || k == UTF8PROC_CATEGORY_CC || k == UTF8PROC_CATEGORY_CF ||
           k == UTF8PROC_CATEGORY_CS || k == UTF8PROC_CATEGORY_CO;
}

bool is_punctuation(std::uint32_t c) {
    const auto k = category(c);
    const bool symbol = k >= UTF8PROC_CATEGORY_SM && k <= UTF8PROC_CATEGORY_SO;
    return (k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO) || (c < 0x7F && symbol);
}

class WordPiece final : public Encoder {
public:
    explicit WordPiece(const Vocab& v) : vocab_(v) {
        std::vector<std::pair<std::string_view, Token>> strings;
        strings.reserve(v.size());
        for (std::size_t i = 0; i < v.size(); ++i) {
            if (v.is_ordinary(static_cast<Token>(i))) strings.emplace_back(v.pieces[i], static_cast<Token>(i));
        }
        pieces_ = PrefixMatcher(std::move(strings));
    }

    Status encode(std::string_view text, std::vector<Token>& out) const override {
        std::string word;
        for (std::size_t at = 0; at < text.size();) {
            const CodePoint c = decode_utf8(text.substr(at, 4));
            at += c.size == 0 ? 1 : c.size;
            if (c.size == 0) continue;         // as U+FFFD, which is removed
            if (is_white_space(c.value)) {
                finish(word, out);
            } else if (!is_removed(c.value)) {
                normalise(c.value, word, out);
            }
        }
        finish(word, out);
        return {};
    }

private:
    void normalise(std::uint32_t c, std::string& word, std::vector<Token>& out) const {
        // The longest canonical decomposition of a character has four parts (U+1F82 and its like).
        std::array<utf8proc_int32_t, 8> parts{static_cast<utf8proc_int32_t>(c)};
        utf8proc_ssize_t n = 1;
        if (vocab_.strip_accents) {
            int last_class = 0;
            n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), parts.data(), parts.size(),
                                        UTF8PROC_DECOMPOSE, &last_class);
        }
        for (utf8proc_ssize_t i = 0; i < n && i < static_cast<utf8proc_ssize_t>(parts.size()); ++i) {
            const auto part = static_cast<std::uint32_t>(parts[static_cast<std::size_t>(i)]);
            if (vocab_.strip_accents && category(part) == UTF8PROC_CATEGORY_MN) continue;
            const bool alone = is_punctuation(part) || is_cjk(part);
            if (alone) finish(word, out);
            append_utf8(word, vocab_.lowercase ? lower(part) : part);
            if (alone) finish(word, out);
        }
    }

    /// Cuts the word and empties it. A word that the pieces cannot spell is one unknown token.
    void finish(std::string& word, std::vector<Token>& out) const {
        if (word.empty()) return;
        word.insert(0, kSpaceMark);
        const std::size_t before = out.size();
        for (std::size_t at = 0; at < word.size();) {
            const auto match = pieces_.longest(std::string_view(word).substr(at));
            if (match.size == 0) {
                out.resize(before);
                if (vocab_.unk != kNoToken) out.push_back(vocab_.unk);
                break;
            }
            out.push_back(match.token);
            at += match.size;
        }
        word.clear();
    }

    const Vocab& vocab_;
    PrefixMatcher pieces_;
};

}  // namespace

Result<std::unique_ptr<Encoder>> make_wordpiece(const Vocab& vocab) {
    return std::unique_ptr<Encoder>(std::make_unique<WordPiece>(vocab));
}

}  // namespace quern::text
