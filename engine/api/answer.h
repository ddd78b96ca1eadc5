// SPDX-License-Identifier: Apache-2.0
// What becomes of logits on the way to a GenerateResult: token, text, stop strings, callbacks. Session and Batcher run
// their sequences in different ways and share this, so that a request is answered alike.
#pragma once

#include "engine/api/model_impl.h"
#include "engine/run/recorder.h"
#include "engine/sample/chain.h"
#include "engine/sample/stop_strings.h"

namespace quern {

class Answer {
public:
    /// `options` must outlive it.
    static Result<Answer> create(const Model::Impl& model, const GenerateOptions& options);

    /// What sampling and text take goes there from now on, as does the number of tokens. It must outlive this.
    void record_to(engine::Recorder* recorder) { recorder_ = recorder; }
    /// Spent in the caller's on_text so far.
    double callback_seconds() const { return callback_seconds_; }
    /// Tells the penalties what stands before the answer.
    void read(std::span<const Token> tokens);
    /// Room for a result of so many tokens, so that none of them allocates.
    void reserve(std::uint32_t n_tokens);
    /// Whether it is over before the next token: was stopped, is as long as it may be, or has no room for a token.
    bool at_limit(std::uint32_t room);
    /// The next token, for take(). It counts as nothing if over(): it ended the generation.
    Result<Token> sample(std::span<const float> logits);
    /// The same, given a guess at it and what that was drawn from (Chain::verify), after reserve_verify().
    Result<Token> verify(std::span<const float> logits, Token guess, std::span<const engine::Candidate> drawn_from);
    void reserve_verify() { chain_.reserve_verify(); }
    void take(Token token);
    /// The first reason counts.
    void stop(StopReason reason);
    bool over() const { return over_; }
    GenerateResult& result() { return result_; }
    /// Shows what was held back for stop strings, and hands the result over.
    GenerateResult finish();

private:
    Answer(const Model::Impl& model, const GenerateOptions& options, engine::Chain chain, engine::StopMatcher stops);
    void emit(std::string_view text);
    template <class Choose>
    Result<Token> choose(Choose choose);

    const GenerateOptions* options_;
    std::shared_ptr<const text::Tokenizer> tokenizer_;
    engine::Chain chain_;
    text::StreamDecoder decoder_;
    engine::StopMatcher stops_;
    GenerateResult result_;
    engine::Recorder* recorder_ = nullptr;
    double callback_seconds_ = 0;
    bool over_ = false;
};

}  // namespace quern
