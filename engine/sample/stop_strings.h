// SPDX-License-Identifier: Apache-2.0
// Finds stop strings in text that arrives in pieces, and lets through at once all that cannot be a part of one.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "quern/result.hpp"

namespace quern::engine {

/// The stop string that is complete first ends the text; of those complete at the same byte, the one that began first
/// (the longest). So the result depends on the text alone, not on its pieces, and nobody waits for a longer match.
/// Text is let through in whole UTF-8 characters as long as it is valid UTF-8; flush() gives what is left as it is.
class StopMatcher {
public:
    /// No stop strings: only the UTF-8 rule applies. An empty stop string is an error.
    static Result<StopMatcher> create(std::vector<std::string> stops);

    /// Appends text; returns what can be shown now. Valid until the next call. After a match: "".
    std::string_view push(std::string_view piece);
    /// The end of the text: returns what was held back. Valid until the next call.
    std::string_view flush();
    /// The stop string found, as an index into those given; -1: none.
    int matched() const { return matched_; }
    const std::string& stop(int index) const { return stops_[static_cast<std::size_t>(index)].text; }
    /// As after create().
    void reset();

private:
    struct Stop {
        std::string text;
        // [i]: length of the longest proper prefix of text that ends text[0..i] (Knuth-Morris-Pratt)
        std::vector<std::size_t> border;
        std::size_t matched = 0;  // so many bytes of text end what came so far
    };
    StopMatcher() = default;
    void advance(char byte);

    std::vector<Stop> stops_;
    std::string pending_;    // not yet returned
    std::size_t given_ = 0;  // bytes at the front of pending_ that the last call returned
    int matched_ = -1;
};

}  // namespace quern::engine
