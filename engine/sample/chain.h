// SPDX-License-Identifier: Apache-2.0
// From logits to the next token: what is behind quern::Sampler, with the distribution open to speculative decoding and
// tests. Everything here is plain arithmetic (own exponential, own generator), so that a seed gives the same tokens on
// every machine whose logits are the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "quern/quern.hpp"

namespace quern::engine {

/// xoshiro256++ (Blackman and Vigna, arXiv 1805.01407), seeded through splitmix64 as its authors advise.
class Random {
public:
    explicit Random(std::uint64_t seed);
    std::uint64_t next();
    /// In [0, 1), a multiple of 2^-53.
    double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

private:
    std::uint64_t state_[4];
};

struct Candidate {
    Token id = 0;
    float logit = 0;
    double p = 0;  ///< probability; while the chain works, a weight
};

/// Order: logit bias, penalties, top-k, typical, top-p, min-p, temperature. Each step sees what the step before left,
/// renormalised; the cuts look at probabilities before temperature (as in llama.cpp's default order).
class Chain {
public:
    static Result<Chain> create(const SamplerOptions& options, std::uint32_t n_vocab);

    /// The tokens that can come next; p sums to 1. One token, with p = 1, if greedy. Valid until the next call.
    /// logits: [n_vocab]; NaN counts as -infinity. Fails if nothing is left, or on a wrong size. Allocates nothing.
    Result<std::span<const Candidate>> distribution(std::span<const float> logits);
    /// One draw of the last distribution(), or of weights that sum to `total`.
    Token draw(double total = 1);
    /// distribution() and one draw.
    Result<Token> sample(std::span<const float> logits);
    /// A token that has distribution()'s, given `guess`, a draw of `drawn_from`: tokens with p that sums to 1, made without a
    /// look at these logits. The guess itself as often as can be (speculative sampling: arXiv 2211.17192, 2302.01318), always
    /// where both are one same token. Allocates nothing after reserve_verify().
    Result<Token> verify(std::span<const float> logits, Token guess, std::span<const Candidate> drawn_from);
    void reserve_verify() { drawn_from_.resize(n_vocab_); }
    /// Tokens outside the vocabulary are ignored.
    void accept(Token token);
    /// Undoes the newest accept() calls, of up to kTakeBack tokens; `tokens` are those, oldest first.
    void take_back(std::span<const Token> tokens);
    static constexpr std::size_t kTakeBack = 16;
    /// As after create().
    void reset();
    Random& random() { return random_; }

private:
    Chain(const SamplerOptions& options, std::uint32_t n_vocab);
    std::span<const float> adjust(std::span<const float> logits);
    void penalize();
    void collect(std::span<const float> logits);
    float scan_blocks(std::span<const float> logits, std::size_t k);
    void collect_top_k(std::span<const float> logits, std::size_t k);
    void weigh(double scale);
    double greatest_logit() const;
    double total_weight() const;
    void count(Token token);
    template <class Key, class Enough>
    void keep_least(Key key, Enough enough);
    void cut_typical();
    void cut_top_p();
    void cut_min_p();

    SamplerOptions options_;
    std::uint32_t n_vocab_;
    bool penalties_;  // any of them on
    Random random_;
    std::vector<Candidate> candidates_;    // capacity n_vocab
    static constexpr std::size_t kBlock = 256;   // of logits whose maximum is taken first
    std::vector<float> maxima_, sorted_maxima_;  // [n_vocab / kBlock]
    std::vector<std::uint32_t> boundary_;  // scratch of keep_least; capacity n_vocab if it is used
    std::vector<float> adjusted_;          // [n_vocab] logits with bias and penalties; empty if neither is on
    std::vector<double> drawn_from_;       // [n_vocab] all 0 outside verify(); empty until reserve_verify()

    // The last penalty_last_n tokens; all empty unless penalties_.
    std::vector<Token> window_;  // ring of penalty_last_n and kTakeBack older ones; empty if all tokens count
    std::size_t n_seen_ = 0;
    std::vector<std::uint32_t> counts_;  // [n_vocab] occurrences in the window
    std::vector<bool> listed_;           // [n_vocab] is in used_
    std::vector<Token> used_;            // tokens with a count, and some whose count is 0 again; capacity n_vocab
};

}  // namespace quern::engine
