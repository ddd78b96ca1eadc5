// SPDX-License-Identifier: Apache-2.0
// Byte-level BPE (GPT-2 and most models since): words from the pre-tokenizer, bytes merged by a ranked list of pairs.
#include <algorithm>
#include <array>
#include <bit>

#include "engine/text/encoder.h"
#include "engine/text/merge.h"
#include "engine/text/pretokenize.h"
#include "engine/text/unicode.h"
#include "formats/text.h"

namespace quern::text {

namespace {

/// (left, right) -> rank and result; open addressing, filled once to at most one half.
class PairTable {
public:
    explicit PairTable(std::size_t n) : slots_(std::bit_ceil(2 * n + 2)) {}

    /// The first rank of a pair stays.
    void insert(Token left, Token right, std::uint32_t rank, Token result) {
        Slot& s = slots_[position(key(left, right))];
        if (s.key == 0) s = {key(left, right), rank, result};
    }

    std::optional<Merged<std::uint32_t>> find(Token left, Token right) const {
        if (left == kNoToken || right == kNoToken) return std::nullopt;
        const Slot& s = slots_[position(key(left, right))];
        if (s.key == 0) return std::nullopt;
        return Merged<std::uint32_t>{s.rank, s.result};
    }

private:
    struct Slot {
        std::uint64_t key = 0;                 // 0: free
        std::uint32_t rank = 0;
        Token result = kNoToken;
    };

    static std::uint64_t key(Token left, Token right) {
        return static_cast<std::uint64_t>(left) << 32 | (static_cast<std::uint64_t>(right) + 1);
    }

    std::size_t position(std::uint64_t k) const {
        const std::size_t mask = slots_.size() - 1;
        std::uint64_t h = k * 0x9E3779B97F4A7C15u;
        h ^= h >> 32;
        std::size_t i = h & mask;
        while (slots_[i].key != 0 && slots_[i].key != k) i = (i + 1) & mask;
        return i;
    }

    std::vector<Slot> slots_;
};

class Bpe final : public Encoder {
public:
    Bpe(PreTokenizer pre, std::size_t n_merges) : pre_(std::move(pre)), pairs_(n_merges) {}

    Status load(const Vocab& v, bool ignore_merges) {
        for (std::size_t b = 0; b < 256; ++b) {
            std::string text;
            append_utf8(text, char_of_byte(static_cast<std::uint8_t>(b)));
            const Token t = v.find(text);
            bytes_[b] = t != kNoToken && v.is_ordinary(t) ? t : kNoToken;
        }
        std::string joined;
        for (std::size_t i = 0; i < v.merges.size(); ++i) {
            const std::string_view merge = v.merges[i];
            const std::size_t space = merge.find(' ', 1);
            if (space == std::string_view::npos || space + 1 == merge.size()) {
                return bad_merge(i, merge, "is not two pieces with a space between");
            }
            const std::string_view left_text = merge.substr(0, space), right_text = merge.substr(space + 1);
            joined.assign(left_text).append(right_text);
            const Token left = v.find(left_text), right = v.find(right_text), result = v.find(joined);
            if (left == kNoToken || right == kNoToken || result == kNoToken) {
                return bad_merge(i, merge, "names a piece that tokenizer.ggml.tokens does not have");
            }
            // Plain text must not turn into a control token, whatever the file says.
            if (v.is_ordinary(result)) pairs_.insert(left, right, static_cast<std::uint32_t>(i), result);
        }
        if (ignore_merges) index_words(v);
        std::string replacement;
        append_utf8(replacement, 0xFFFD);
        Merger<std::uint32_t> merger;
        merge_word(replacement, merger, replacement_);
        return {};
    }

    Status encode(std::string_view text, std::vector<Token>& out) const override {
        auto words = pre_.split(text);
        if (!words) return std::move(words).error();
        out.reserve(out.size() + words->size());
        Merger<std::uint32_t> merger;
        for (const Range r : *words) {
            const std::string_view word = text.substr(r.begin, r.end - r.begin);
            if (const auto whole = whole_words_.find(word); whole != whole_words_.end()) {
                out.push_back(whole->second);
                continue;
            }
            merge_word(word, merger, out);
        }
        return {};
    }

private:
    static Error bad_merge(std::size_t i, std::string_view merge, std::string_view what) {
        return Error{Errc::bad_file, cat("tokenizer.ggml.merges[", i, "] ", quoted(merge), " ", what,
                                         "; convert the model again with a current converter")};
    }

    void index_words(const Vocab& v) {
        words_storage_.resize(v.size());
        for (std::size_t i = 0; i < v.size(); ++i) {
            if (v.types[i] != TokenType::normal || v.pieces[i].empty()) continue;
            words_storage_[i] = output_bytes(v, static_cast<Token>(i));
            whole_words_.emplace(words_storage_[i], static_cast<Token>(i));
        }
    }

    void merge_word(std::string_view word, Merger<std::uint32_t>& merger, std::vector<Token>& out) const {
        auto& symbols = merger.symbols();
        symbols.clear();
        for (std::size_t i = 0; i < word.size(); ++i) {
            symbols.push_back({static_cast<std::uint32_t>(i), 1, -1, -1, bytes_[static_cast<std::uint8_t>(word[i])]});
        }
        merger.link();
        merger.run([this](const Symbol& a, const Symbol& b) { return pairs_.find(a.token, b.token); });
        for (const Symbol& s : symbols) {
            if (s.size == 0) continue;
            if (s.token != kNoToken) {
                out.push_back(s.token);
            } else if (decode_utf8(word.substr(0, 4)).size == 0) {
                // Only a byte outside UTF-8 is a word that starts with no character.
                out.insert(out.end(), replacement_.begin(), replacement_.end());
            }
        }
    }

    PreTokenizer pre_;
    PairTable pairs_;
    std::array<Token, 256> bytes_{};
    std::vector<Token> replacement_;           // U+FFFD
    std::vector<std::string> words_storage_;
    std::unordered_map<std::string_view, Token> whole_words_;
};

}  // namespace

Result<std::unique_ptr<Encoder>> make_bpe(const Vocab& vocab) {
    const PreTokenizerSpec* spec = find_pre_tokenizer(vocab.pre);
    if (!spec) {
        return Error{Errc::unsupported,
                     cat("tokenizer.ggml.pre is ", quoted(vocab.pre), ", which Quern does not know")};
    }
    auto pre = PreTokenizer::create(*spec);
    if (!pre) return std::move(pre).error();
    auto bpe = std::make_unique<Bpe>(*std::move(pre), vocab.merges.size());
    if (Status s = bpe->load(vocab, spec->ignore_merges); !s) return std::move(s).error();
    return std::unique_ptr<Encoder>(std::move(bpe));
}

}  // namespace quern::text
