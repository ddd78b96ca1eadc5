// SPDX-License-Identifier: Apache-2.0
// A draft model: guesses the next tokens by running a smaller model, and how many guesses are worth their time. The target
// checks them so that its own distribution comes out (Chain::verify): greedy text keeps its tokens, sampled text its
// distribution.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/run/sequence.h"
#include "engine/run/step_costs.h"
#include "engine/sample/chain.h"

namespace quern::engine {

class Draft {
public:
    /// executor: of the smaller model, whose first n_vocab tokens are the target's: no others are guessed, and nothing after a
    /// text that has others. n_ctx: tokens that it reads at most. n_fixed: guesses a step; 0: as many as pay. For `target`: a
    /// model that reads too much for a token to pay, by the bytes of both, is never run.
    Draft(Executor& executor, const Executor& target, std::uint32_t n_vocab, std::uint32_t n_ctx, std::uint32_t n_fixed);

    /// An answer begins, with these options of the target's sampler; a step has room for `most` guesses.
    Status begin(const SamplerOptions& options, std::uint32_t most);
    /// The tokens to try after `text`, whose last one the target has not run; at most `room`; valid until the next call.
    /// None where plain steps are faster, or where the draft's KV cache is full.
    std::span<const Token> guess(std::span<const Token> text, std::uint32_t room);
    /// What guess i was drawn from; for a greedy target only the guess itself.
    std::span<const Candidate> drawn_from(std::uint32_t i) const { return {candidates_.data() + i * kCandidates, n_candidates_[i]}; }
    /// The step that ran the last token and the guesses of the last guess() took so long.
    void ran(double seconds);
    /// Of those guesses so many were kept.
    void accepted(std::uint32_t n);
    /// The guesses of the last guess() were not run.
    void drop() { guesses_.clear(); }

    Sequence& sequence() { return sequence_; }
    std::uint64_t n_guessed() const { return n_guessed_; }   // since begin()
    std::uint64_t n_accepted() const { return n_accepted_; }

private:
    // A draft's tail is left out beyond these: it is fast, the result stays exact, and guesses from there are rarely kept.
    static constexpr std::uint32_t kCandidates = 256;
    static constexpr std::uint32_t kClasses = 8;
    /// How often guesses were kept, older ones counting less.
    struct Rate {
        double hits = 0, tries = 0;
        double of(double before) const { return (hits + 2 * before) / (tries + 2); }
        void add(bool hit, double memory) { tries = tries * memory + 1, hits = hits * memory + (hit ? 1 : 0); }
    };

    StepCosts::Width plan(std::uint32_t room);
    /// Seconds of a step of the draft: measured, or what they are likely to be.
    double step() const { return step_ > 0 ? step_ : expected_step_ * costs_.of(0); }
    bool catch_up(std::span<const Token> text);
    void run_guesses(StepCosts::Width plan, std::uint32_t room);
    Token draw(std::span<const Candidate> from);

    Sequence sequence_;
    std::uint32_t n_vocab_, n_fixed_, most_ = 0;
    std::optional<Chain> chain_;
    bool greedy_ = false, first_ = true;
    std::uint32_t n_known_ = 0;              // tokens of the text that chain_ has been told
    std::vector<Token> guesses_;
    std::vector<Candidate> candidates_;      // [kMost][kCandidates]
    std::array<std::uint32_t, StepCosts::kMost> n_candidates_{}, class_{};
    // What was measured; it outlives an answer.
    StepCosts costs_;
    double step_ = 0, spent_ = 0;            // seconds: of a step of the draft (0: not measured); of the last guess()
    double expected_step_;                   // against one of the target
    std::array<Rate, kClasses> rates_;       // by how sure the draft is
    Rate rate_;                              // of all
    std::uint64_t n_guessed_ = 0, n_accepted_ = 0;
};

}  // namespace quern::engine
