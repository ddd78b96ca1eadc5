// SPDX-License-Identifier: Apache-2.0
// Finds the longest of many strings that a text starts with, by narrowing a sorted list byte by byte.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/text/vocab.h"

namespace quern::text {

class PrefixMatcher {
public:
    struct Match {
        Token token = kNoToken;
        std::size_t size = 0;                  // bytes, 0 where nothing matches
    };

    PrefixMatcher() = default;
    /// The strings must outlive the matcher; empty ones are dropped.
    explicit PrefixMatcher(std::vector<std::pair<std::string_view, Token>> strings);

    /// Time grows with the bytes that agree with some string, at most the longest string's.
    Match longest(std::string_view text) const;

private:
    std::vector<std::pair<std::string_view, Token>> sorted_;
    std::array<std::uint32_t, 257> first_{};   // strings that start with byte b: sorted_[first_[b], first_[b + 1])
};

}  // namespace quern::text
