// SPDX-License-Identifier: Apache-2.0
// Text to tokens and back, for the three kinds of vocabulary that GGUF models carry.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/encoder.h"
#include "engine/text/prefix_matcher.h"
#include "engine/text/vocab.h"
#include "quern/result.hpp"

namespace quern::text {

/// Longest text that encode() takes, in bytes.
inline constexpr std::size_t kMaxTextBytes = std::size_t{1} << 30;

struct TokenizeOptions {
    bool add_special = false;    ///< add bos, eos or the like where the model wants them
    bool parse_special = false;  ///< control tokens written in the text become those tokens; leave off for user text
    std::span<const std::size_t> literal = {};  ///< ascending offsets at which no control token begins all the same
};

/// Immutable and thread safe; one serves a whole model. Does not need the file any more once created.
class Tokenizer {
public:
    /// Errors name the key of the file that is missing, wrong or unknown.
    static Result<std::shared_ptr<const Tokenizer>> create(const gguf::File& file);

    const Vocab& vocab() const { return vocab_; }
    std::size_t n_vocab() const { return vocab_.size(); }

    /// Tokens of `text`. Time O(n log n). User-defined tokens always match whole; control tokens only with
    /// parse_special. Any bytes are accepted: those outside UTF-8 become byte tokens, or U+FFFD where the vocabulary
    /// has no token for the byte. A byte of a valid character that byte-level BPE has no token for is left out, as in
    /// the models' own tokenizers (SmolLM2 lacks six control characters). Fails for texts over kMaxTextBytes.
    Result<std::vector<Token>> encode(std::string_view text, TokenizeOptions options = {}) const;

    /// The bytes that a token adds to output text, possibly a part of a character. Empty for control and unknown
    /// tokens unless `special`, and for ids outside the vocabulary. Valid as long as the tokenizer.
    std::string_view piece(Token t, bool special = false) const;

    /// Inverse of encode() without add_special. Where encoding put a space before the text (add_space_prefix), it
    /// is left out again.
    std::string decode(std::span<const Token> tokens, bool special = false) const;

    bool is_end_of_generation(Token t) const;
    bool is_control(Token t) const;
    /// Whether `text` starts with what parse_special would take for a control token.
    bool starts_with_control(std::string_view text) const;

private:
    friend class StreamDecoder;
    explicit Tokenizer(Vocab vocab) : vocab_(std::move(vocab)) {}
    void index_special();
    void build_pieces();
    bool in_vocab(Token t) const { return t >= 0 && static_cast<std::size_t>(t) < vocab_.size(); }
    bool is_special(Token t) const;
    bool starts_with_added_space() const { return vocab_.add_space_prefix || vocab_.model == "bert"; }
    Status encode_text(std::string_view text, std::vector<Token>& out) const;
    /// The bytes of the next token of a sequence. Encoding adds a space after every control and user-defined token
    /// too; `skip_space` carries that from token to token.
    std::string_view next_bytes(Token t, bool special, bool& skip_space) const;

    Vocab vocab_;
    std::unique_ptr<const Encoder> encoder_;
    PrefixMatcher user_defined_, all_special_; // without and with control tokens
    std::string bytes_;                        // all output bytes, one after the other
    std::vector<std::size_t> ends_;            // [n_vocab + 1] offsets into bytes_
};

/// Detokenizes one token at a time and never gives out a part of a character that later tokens may complete. All
/// output together is, byte for byte, what decode() gives: bytes that cannot become a character pass unchanged.
class StreamDecoder {
public:
    /// `at_start`: the tokens start a text, rather than continue one, so that the space encode() adds is left out.
    explicit StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool at_start = false, bool special = false);

    /// What this token completes, often one word, sometimes nothing. Valid until the next call.
    std::string_view push(Token t);
    /// The held bytes of an unfinished character, as they are; call at the end.
    std::string flush();
    void reset();

private:
    std::shared_ptr<const Tokenizer> tokenizer_;
    std::string text_;                         // [given out][held]
    std::size_t given_ = 0;
    bool at_start_, special_, skip_space_;
};

}  // namespace quern::text
