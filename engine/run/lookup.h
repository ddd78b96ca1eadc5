// SPDX-License-Identifier: Apache-2.0
// Prompt lookup: guesses the next tokens by what followed the same words earlier in the text, and how many guesses are worth
// their time. Where a copy differs from what it copies in a token, as by a new name, the same is guessed from then on. Guesses
// are checked by the model, so they change no token, only when it is known.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/run/step_costs.h"

namespace quern::engine {

class Lookup {
public:
    static constexpr std::uint32_t kMost = StepCosts::kMost;
    /// most: guesses that a step has room for.
    explicit Lookup(std::uint32_t most);

    /// The tokens to try after `text`, at most `room`; valid until the next call. None where nothing is alike, or where
    /// what was measured so far says that plain steps are faster.
    std::span<const std::int32_t> guess(std::span<const std::int32_t> text, std::uint32_t room);
    /// The step that ran the last token and the guesses of the last guess() took so long.
    void ran(double seconds);
    /// Of those guesses so many were what the model said.
    void accepted(std::uint32_t n);
    /// The guesses of the last guess() were not run.
    void drop() { guesses_.clear(); }

    std::uint64_t n_guessed() const { return n_guessed_; }
    std::uint64_t n_accepted() const { return n_accepted_; }

private:
    std::uint32_t width(std::uint32_t match) const;
    double hit_rate(std::uint32_t match) const;
    std::int32_t edited(std::int32_t token) const;
    void note_edits(std::span<const std::int32_t> text);

    static constexpr std::uint32_t kLongest = 16;   // of the tokens that are compared; more say no more
    static constexpr std::uint32_t kEdits = 8;
    struct Edit { std::int32_t from = -1, to = -1; };
    /// Tokens that the copy has others for; the newest replaces the oldest.
    std::array<Edit, kEdits> edits_;
    std::uint32_t n_edits_ = 0;                     // noted so far
    std::size_t copied_ = 0, source_ = 0;           // of the last guesses: where the first stands, and where it is from; 0: none
    /// By length of the match: how often a guess was right, older ones counting less.
    struct Rate { double hits = 0, tries = 0; };
    std::array<Rate, kLongest + 1> rates_;
    StepCosts costs_;
    std::vector<std::int32_t> guesses_;
    std::uint32_t most_, match_ = 0;
    std::uint64_t n_guessed_ = 0, n_accepted_ = 0;
};

}  // namespace quern::engine
