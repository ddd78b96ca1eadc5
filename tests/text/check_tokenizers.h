// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace quern::test {

/// Runs the tokenizers on arbitrary bytes and returns what is wrong, "" if nothing is. The first byte chooses: below
/// 0x80 one of several small vocabularies, for which the rest is text; else the rest is a vocabulary file.
std::string check_tokenizers(std::span<const std::byte> input);

/// True if a UTF-8 character of `text` lies across the byte offset `at`.
bool cuts_character(std::string_view text, std::size_t at);

}  // namespace quern::test
