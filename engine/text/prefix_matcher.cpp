// SPDX-License-Identifier: Apache-2.0
#include "engine/text/prefix_matcher.h"

#include <algorithm>

namespace quern::text {

PrefixMatcher::PrefixMatcher(std::vector<std::pair<std::string_view, Token>> strings) : sorted_(std::move(strings)) {
    std::erase_if(sorted_, [](const auto& s) { return s.first.empty(); });
    std::sort(sorted_.begin(), sorted_.end());
    for (const auto& s : sorted_) ++first_[static_cast<std::uint8_t>(s.first[0]) + 1u];
    for (std::size_t b = 1; b < first_.size(); ++b) first_[b] += first_[b - 1];
}

PrefixMatcher::Match PrefixMatcher::longest(std::string_view text) const {
    if (text.empty()) return {};
    const auto byte_at = [](std::string_view s, std::size_t i) { return static_cast<std::uint8_t>(s[i]); };
    const std::uint8_t b0 = byte_at(text, 0);
    const auto* low = sorted_.data() + first_[b0];
    const auto* high = sorted_.data() + first_[b0 + 1u];
    Match best;
    // All of [low, high) agree with the first `depth` bytes of the text; a string of just that length sorts first.
    for (std::size_t depth = 1; low != high; ++depth) {
        if (low->first.size() == depth) best = {(low++)->second, depth};
        if (depth == text.size()) break;
        const std::uint8_t b = byte_at(text, depth);
        low = std::partition_point(low, high, [&](const auto& s) { return byte_at(s.first, depth) < b; });
        high = std::partition_point(low, high, [&](const auto& s) { return byte_at(s.first, depth) == b; });
    }
    return best;
}

}  // namespace quern::text
