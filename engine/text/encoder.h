// SPDX-License-Identifier: Apache-2.0
// What a kind of tokenizer provides; tokenizer.cpp does the rest (special tokens, decoding).
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "engine/text/vocab.h"
#include "quern/result.hpp"

namespace quern::text {

/// Turns plain text, at most 2^30 bytes, into tokens. Immutable after creation.
class Encoder {
public:
    virtual ~Encoder() = default;
    /// Appends the tokens of one stretch of text between special tokens. Bytes that are not valid UTF-8 are encoded
    /// one by one.
    virtual Status encode(std::string_view text, std::vector<Token>& out) const = 0;
};

// The vocabulary must outlive the encoder.
Result<std::unique_ptr<Encoder>> make_bpe(const Vocab& vocab);
Result<std::unique_ptr<Encoder>> make_spm(const Vocab& vocab);
Result<std::unique_ptr<Encoder>> make_wordpiece(const Vocab& vocab);

/// The bytes that a token of text stands for: byte-encoding and space marks undone.
std::string output_bytes(const Vocab& vocab, Token t);

}  // namespace quern::text
