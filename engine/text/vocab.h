// SPDX-License-Identifier: Apache-2.0
// The vocabulary of a model: the tokenizer.ggml.* keys of a GGUF file, checked and copied out of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "formats/gguf.h"
#include "quern/result.hpp"

namespace quern::text {

using Token = std::int32_t;

/// No token: what a special id holds where the model has none.
inline constexpr Token kNoToken = -1;

/// Values as in tokenizer.ggml.token_type.
enum class TokenType : std::uint8_t { normal = 1, unknown, control, user_defined, unused, byte };

/// Longest stored piece in bytes. Real ones stay under 1 KiB; the bound keeps matching linear in the text.
inline constexpr std::size_t kMaxPieceBytes = 16384;

/// Plain data; every id in it is kNoToken or in [0, n_vocab). Views point into memory that the Vocab owns, so it
/// outlives the file and copies stay valid.
struct Vocab {
    std::string model;                         // tokenizer.ggml.model: "gpt2", "llama" or "bert"
    std::string pre;                           // tokenizer.ggml.pre; "default" where the key is absent
    std::vector<std::string_view> pieces;      // [n_vocab], as stored: byte-encoded for gpt2, U+2581 for spaces
    std::vector<float> scores;                 // [n_vocab], or empty
    std::vector<TokenType> types;              // [n_vocab]
    std::vector<std::string_view> merges;      // "left right", best first; gpt2 only

    Token bos = kNoToken, eos = kNoToken, eot = kNoToken, eom = kNoToken, unk = kNoToken, sep = kNoToken,
          pad = kNoToken, cls = kNoToken, mask = kNoToken;
    Token fim_pre = kNoToken, fim_suf = kNoToken, fim_mid = kNoToken, fim_pad = kNoToken, fim_rep = kNoToken,
          fim_sep = kNoToken;
    bool add_bos = false, add_eos = false, add_sep = false;   // what TokenizeOptions::add_special adds
    bool add_space_prefix = false;             // llama: a text starts as if a space stood before it
    bool remove_extra_whitespaces = false;     // kept for inspection; no supported tokenizer acts on it
    bool lowercase = true, strip_accents = true;              // bert normalizer

    /// Tokens that end an answer: eos, eot, eom and the well-known names (<|im_end|>, </s>, ...). Sorted.
    std::vector<Token> end_of_generation;

    std::size_t size() const { return pieces.size(); }
    /// Token stored under exactly this text, kNoToken if none.
    Token find(std::string_view text) const;
    /// True for tokens that text may be made of: not control, unknown or byte tokens.
    bool is_ordinary(Token t) const;
    /// The byte that a token of type byte stands for, -1 for other types.
    int byte_value(Token t) const;

    /// Errors name the key, its type or length, and say what to do.
    static Result<Vocab> load(const gguf::File& file);

private:
    friend class VocabLoader;
    std::shared_ptr<const std::string> storage_;
    std::unordered_map<std::string_view, Token> by_text_;
};

}  // namespace quern::text
