// SPDX-License-Identifier: Apache-2.0
// Several sequences that decode in lockstep: one engine step gives each of them its next token.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/run/executor.h"
#include "quern/quern.hpp"

namespace quern::bench {

/// n tokens that nothing depends on, the same for the same seed.
std::vector<Token> random_tokens(std::uint32_t n, std::uint32_t n_vocab, std::uint32_t seed);

/// Each stream has a prompt of its own and goes on greedily. The first stream's prompt depends on no other stream, so
/// its tokens must be the same however many there are.
class Streams {
public:
    /// Tokens that the KV cache must hold for n_streams of n_prompt + n_gen tokens: whole pages each.
    static std::uint32_t n_ctx(std::uint32_t n_streams, std::uint32_t n_prompt, std::uint32_t n_gen);

    /// Reads the prompts (n_prompt >= 1) and takes all memory. The executor must outlive the streams.
    static Result<Streams> create(engine::Executor& executor, std::uint32_t n_streams, std::uint32_t n_prompt,
                                  std::uint32_t n_gen);
    Streams(Streams&&) = default;
    ~Streams();

    /// n_gen steps from the end of the prompts, the same at each call: cache rows are written again.
    Status generate();
    /// What stream i generated in the last generate(): [n_gen].
    std::span<const Token> generated(std::uint32_t i) const { return streams_[i].generated; }

private:
    struct Stream {
        std::vector<std::uint32_t> pages;  // block table
        Token first = 0;                   // the best token after the prompt
        std::vector<Token> generated;
    };

    Streams(engine::Executor& executor, std::uint32_t n_prompt, std::uint32_t n_gen);
    Status read_prompt(Stream& stream, std::span<const Token> prompt);
    Token best(std::uint32_t row) const;

    engine::Executor* executor_;
    std::uint32_t n_prompt_, n_gen_;
    std::vector<Stream> streams_;
    std::vector<Token> tokens_;             // [n_streams], the step's
    std::vector<engine::SeqChunk> chunks_;  // [n_streams]
    std::vector<std::uint32_t> outputs_;    // 0 .. n_streams - 1
    std::vector<float> logits_;             // [n_streams][n_vocab]
};

/// FNV-1a over token ids: equal texts have equal checksums.
std::uint64_t checksum(std::span<const Token> tokens);

}  // namespace quern::bench
