// SPDX-License-Identifier: Apache-2.0
// Merging neighbours best pair first, in O(n log n): a linked list of symbols and a heap of candidate pairs. BPE and
// SentencePiece differ only in which pairs may merge and how good they are.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "engine/text/vocab.h"

namespace quern::text {

/// A stretch of the text: size bytes from begin; merged away once size is 0.
struct Symbol {
    std::uint32_t begin = 0, size = 0;
    std::int32_t prev = -1, next = -1;
    Token token = kNoToken;
};

/// What a pair becomes. The smallest cost merges first, the leftmost among equals.
template <class Cost>
struct Merged {
    Cost cost;
    Token token;
};

/// Buffers that one encoding reuses from word to word.
template <class Cost>
class Merger {
public:
    std::vector<Symbol>& symbols() { return symbols_; }

    /// Makes the symbols a list in their order.
    void link() {
        const auto n = static_cast<std::int32_t>(symbols_.size());
        for (std::int32_t i = 0; i < n; ++i) {
            symbols_[static_cast<std::size_t>(i)].prev = i - 1;
            symbols_[static_cast<std::size_t>(i)].next = i + 1 < n ? i + 1 : -1;
        }
    }

    /// Merges the linked symbols to the end; `pair(left, right)` gives std::optional<Merged<Cost>>. Returns the number
    /// of candidates looked at, at most three for each symbol.
    template <class Pair>
    std::size_t run(const Pair& pair) {
        heap_.clear();
        const auto n = static_cast<std::int32_t>(symbols_.size());
        for (std::int32_t i = 0; i + 1 < n; ++i) push(pair, i, i + 1);
        std::size_t taken = 0;
        for (; !heap_.empty(); ++taken) {
            std::pop_heap(heap_.begin(), heap_.end(), worse);
            const Candidate c = heap_.back();
            heap_.pop_back();
            Symbol& left = at(c.left);
            Symbol& right = at(c.right);
            // One of them grew or went since: symbols only grow, so an equal sum means an unchanged pair.
            if (left.size == 0 || right.size == 0 || left.size + right.size != c.size) continue;
            left.size += right.size;
            left.token = c.token;
            left.next = right.next;
            right.size = 0;
            if (right.next >= 0) at(right.next).prev = c.left;
            if (left.prev >= 0) push(pair, left.prev, c.left);
            if (left.next >= 0) push(pair, c.left, left.next);
        }
        return taken;
    }

private:
    struct Candidate {
        Cost cost;
        std::int32_t left, right;
        std::uint32_t size;
        Token token;
    };

    static bool worse(const Candidate& a, const Candidate& b) {
        return a.cost > b.cost || (a.cost == b.cost && a.left > b.left);
    }

    Symbol& at(std::int32_t i) { return symbols_[static_cast<std::size_t>(i)]; }

    template <class Pair>
    void push(const Pair& pair, std::int32_t left, std::int32_t right) {
        const std::optional<Merged<Cost>> m = pair(at(left), at(right));
        if (!m) return;
        heap_.push_back({m->cost, left, right, at(left).size + at(right).size, m->token});
        std::push_heap(heap_.begin(), heap_.end(), worse);
    }

    std::vector<Symbol> symbols_;
    std::vector<Candidate> heap_;
};

}  // namespace quern::text
