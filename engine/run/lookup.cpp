// SPDX-License-Identifier: Apache-2.0
#include "engine/run/lookup.h"

#include <algorithm>
#include <utility>

namespace quern::engine {
namespace {

constexpr std::uint32_t kShortest = 2;     // tokens that must be alike: one alone is mostly chance
constexpr std::uint32_t kCopy = 8;         // tokens alike: a copy, whose differences are edits
constexpr double kMemory = 0.95;           // what older tries still count after one more

}  // namespace

Lookup::Lookup(std::uint32_t most) : most_(std::min(most, kMost)) { guesses_.reserve(kMost); }

/// Before anything is known, a guess after m like tokens is right in m / (m + 3) of the cases; that counts as two tries.
double Lookup::hit_rate(std::uint32_t match) const {
    const Rate& r = rates_[match];
    return (r.hits + 2.0 * match / (match + 3)) / (r.tries + 2);
}

std::uint32_t Lookup::width(std::uint32_t match) const {
    return !costs_.known() || costs_.losing() ? 0 : costs_.best(most_, hit_rate(match)).n;
}

/// What a copy has for `token`.
std::int32_t Lookup::edited(std::int32_t token) const {
    for (const Edit& e : edits_)
        if (e.from == token) return e.to;
    return token;
}

/// Holds what came against what was copied then. Behind the first difference only one in its place is sure to be one: the others
/// may have moved.
void Lookup::note_edits(std::span<const std::int32_t> text) {
    const std::size_t at = std::exchange(copied_, 0), from = source_;
    if (at == 0) return;
    for (std::size_t i = 0; at + i < text.size(); ++i) {
        const std::int32_t was = text[from + i], is = text[at + i];
        if (edited(was) == is) continue;
        const auto known = std::find_if(edits_.begin(), edits_.end(), [was](const Edit& e) { return e.from == was; });
        if (known != edits_.end()) *known = {};
        if (was != is) (known != edits_.end() ? *known : edits_[n_edits_++ % kEdits]) = {was, is};
        return;
    }
}

std::span<const std::int32_t> Lookup::guess(std::span<const std::int32_t> text, std::uint32_t room) {
    guesses_.clear();
    note_edits(text);
    match_ = 0;
    if (text.size() <= kShortest || room == 0 || most_ == 0) return guesses_;
    const std::int32_t* const last = text.data() + text.size() - 1;
    const auto old = std::find_if(edits_.begin(), edits_.end(), [last](const Edit& e) { return e.to == *last; });
    const std::int32_t before = old == edits_.end() ? *last : old->from;   // what the last token may stand for
    const std::int32_t* found = nullptr;
    for (const std::int32_t* p = last; p-- > text.data();) {   // of equally long matches the newest
        if (*p != *last && *p != before) continue;
        const auto most = static_cast<std::uint32_t>(std::min<std::ptrdiff_t>(p - text.data() + 1, kLongest));
        const auto alike = [&](std::ptrdiff_t i) { return p[-i] == last[-i] || edited(p[-i]) == last[-i]; };
        std::uint32_t n = 1;
        while (n < most && alike(static_cast<std::ptrdiff_t>(n))) ++n;
        if (n <= match_) continue;
        match_ = n;
        found = p;
        if (n == kLongest) break;
    }
    if (match_ < kShortest) return guesses_;
    // Where the earlier place runs into the end of the text, it goes on with the guesses themselves.
    const std::uint32_t n = std::min(room, width(match_)), known = static_cast<std::uint32_t>(last - found);
    for (std::uint32_t i = 0; i < n; ++i) guesses_.push_back(i < known ? edited(found[1 + i]) : guesses_[i - known]);
    if (match_ >= kCopy) {
        copied_ = text.size();
        source_ = static_cast<std::size_t>(found - text.data()) + 1;
    }
    return guesses_;
}

void Lookup::ran(double seconds) {
    n_guessed_ += guesses_.size();
    costs_.ran(static_cast<std::uint32_t>(guesses_.size()), seconds);
}

void Lookup::accepted(std::uint32_t n) {
    if (guesses_.empty()) return;
    n_accepted_ += n;
    costs_.won(n);
    Rate& r = rates_[match_];
    for (std::uint32_t i = 0; i < std::min<std::size_t>(n + 1, guesses_.size()); ++i) {
        r.tries = r.tries * kMemory + 1;
        r.hits = r.hits * kMemory + (i < n ? 1 : 0);
    }
    guesses_.clear();
}

}  // namespace quern::engine
