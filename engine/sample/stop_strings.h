// SPDX-License-Identifier: Apache-2.0
// Finds stop strings in text that arrives in pieces, and lets through at once all that cannot be a part of one.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace quern::engine {

/// The stop string that is complete first ends the text; of those complete at the same byte, the one that began first
/// (the longest). So the result depends on the text alone, not on its pieces, and nobody waits for a longer match.
/// Text is let through in whole UTF-8 characters as long as it is valid UTF-8; flush() gives what is left as it is.
class StopStrings {
public:
    /// No stop strings: only the UTF-8 rule applies. Empty ones never match.
    explicit StopStrings(const std::vector<std::string>& stops);

    /// Appends text; returns what can be shown now. Valid until the next call. After a match: "".
    std::string_view push(std::string_view piece);
    /// The end of the text: returns what was held back. Valid until the next call.
    std::string_view flush();
    /// The stop string found; null if none was. Valid as long as this object.
    const std::string* found() const { return found_; }
    StopStrings(StopStrings&&) = default;  // found_ points into stops_, whose elements stay where they are
    StopStrings& operator=(StopStrings&&) = default;
    /// As after construction.
    void reset();

private:
    struct Stop {
        std::string text;
        // [i]: length of the longest proper prefix of text that ends text[0..i] (Knuth-Morris-Pratt)
        std::vector<std::size_t> border;
        std::size_t matched = 0;  // so many bytes of text end what came so far
    };
    void advance(char byte);

    std::vector<Stop> stops_;
    std::string pending_;    // not yet returned
    std::size_t given_ = 0;  // bytes at the front of pending_ that the last call returned
    const std::string* found_ = nullptr;
};

}  // namespace quern::engine
