// SPDX-License-Identifier: Apache-2.0
// Cuts text into the words inside which byte-level BPE merges. Each model family has its own regular expressions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quern/result.hpp"

namespace quern::text {

/// One family of expressions. They are applied one after the other, each inside the pieces that the ones before left:
/// what matches becomes a piece, and what lies between matches too. Nothing looks across the edge of a piece.
struct PreTokenizerSpec {
    std::span<const std::string_view> names;   // values of tokenizer.ggml.pre
    std::span<const std::string_view> patterns;
    bool ignore_merges = false;                // a word that is itself a token is that token, whatever the merges say
    bool add_bos = false;                      // where the file has no add_bos_token
};

/// nullptr if Quern does not know the name.
const PreTokenizerSpec* find_pre_tokenizer(std::string_view name);
/// All names, comma separated, for error texts.
std::string known_pre_tokenizers();

/// Bytes [begin, end) of a text.
struct Range {
    std::uint32_t begin = 0, end = 0;
};

/// The compiled expressions; immutable, so one serves all threads.
class PreTokenizer {
public:
    static Result<PreTokenizer> create(const PreTokenizerSpec& spec);
    PreTokenizer(PreTokenizer&&) noexcept;
    PreTokenizer& operator=(PreTokenizer&&) noexcept;
    ~PreTokenizer();

    /// Cuts all of `text`, at most 2^30 bytes, in order. Every byte that is not part of a valid UTF-8 character is a
    /// word of its own. Fails only where PCRE2 meets one of its limits.
    Result<std::vector<Range>> split(std::string_view text) const;

private:
    struct Impl;
    explicit PreTokenizer(std::unique_ptr<const Impl> impl);
    std::unique_ptr<const Impl> impl_;
};

}  // namespace quern::text
