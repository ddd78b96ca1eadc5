// SPDX-License-Identifier: Apache-2.0
// Small vocabularies made in memory, for tests and fuzzing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/text/tokenizer.h"
#include "formats/gguf_write.h"

namespace quern::test {

struct VocabSpec {
    std::string model = "gpt2";
    std::optional<std::string> pre;
    std::vector<std::string> tokens;
    std::vector<float> scores;                 // left out of the file if empty, as are types and merges
    std::vector<std::int32_t> types;
    std::vector<std::string> merges;
    std::function<void(gguf::Writer&)> extra;  // more entries

    /// Appends a token with its type; scores only where the spec has them.
    text::Token add(std::string text, text::TokenType type = text::TokenType::normal, float score = 0);
    text::Token id(std::string_view text) const;                // kNoToken if absent
    std::vector<std::byte> bytes() const;                       // a GGUF file
};

/// All 256 bytes, the merges for "hello" and " hello", control tokens <|end|> and <|bos|>, user-defined <tool>.
VocabSpec byte_level_spec(const std::string& pre);
/// The same without the bytes 0x04 and 0xFF.
VocabSpec holey_byte_level_spec();
/// <unk>, <s>, </s>, all byte tokens, ASCII letters, pieces of "▁hello", and bait: "</s" and "s>" are pieces.
VocabSpec spm_spec();
/// [PAD] [UNK] [CLS] [SEP] [MASK] and pieces of "unwanted", "running", "cafe", punctuation.
VocabSpec bert_spec();

/// Parses the spec's file and creates a tokenizer, with the file gone afterwards.
Result<std::shared_ptr<const text::Tokenizer>> make_tokenizer(const VocabSpec& spec);

}  // namespace quern::test
