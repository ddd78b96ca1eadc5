// SPDX-License-Identifier: Apache-2.0
#include "engine/api/answer.h"

#include "engine/core/clock.h"

namespace quern {

Answer::Answer(const Model::Impl& model, const GenerateOptions& options, engine::Chain chain, engine::StopMatcher stops)
    : options_(&options),
      tokenizer_(model.tokenizer),
      chain_(std::move(chain)),
      decoder_(model.tokenizer),
      stops_(std::move(stops)) {}

Result<Answer> Answer::create(const Model::Impl& model, const GenerateOptions& options) {
    if (auto s = model.need_tokenizer(); !s) return std::move(s).error();
    auto chain = engine::Chain::create(options.sampler, model.info.n_vocab);
    if (!chain) return std::move(chain).error();
    auto stops = engine::StopMatcher::create(options.stop);
    if (!stops) return std::move(stops).error();
    return Answer(model, options, std::move(*chain), std::move(*stops));
}

void Answer::read(std::span<const Token> tokens) {
    for (const Token t : tokens) chain_.accept(t);
}

void Answer::reserve(std::uint32_t n_tokens) {
    constexpr std::size_t kBytesPerToken = 8;   // of text; more makes it grow
    result_.tokens.reserve(n_tokens);
    result_.text.reserve(n_tokens * kBytesPerToken);
}

bool Answer::at_limit(std::uint32_t room) {
    if (options_->max_tokens >= 0 && static_cast<std::int64_t>(result_.tokens.size()) >= options_->max_tokens)
        stop(StopReason::max_tokens);
    if (room == 0) stop(StopReason::context_full);
    return over_;
}

template <class Choose>
Result<Token> Answer::choose(Choose choose) {
    engine::Stopwatch clock;
    Result<Token> token = choose();
    if (recorder_) recorder_->add(engine::Stage::sampling, clock.seconds());
    if (token && !options_->ignore_end_of_generation && tokenizer_->is_end_of_generation(*token))
        stop(StopReason::end_of_generation);
    return token;
}

Result<Token> Answer::sample(std::span<const float> logits) {
    return choose([&] { return chain_.sample(logits); });
}

Result<Token> Answer::verify(std::span<const float> logits, Token guess, std::span<const engine::Candidate> drawn_from) {
    return choose([&] { return chain_.verify(logits, guess, drawn_from); });
}

void Answer::take(Token token) {
    engine::Stopwatch clock;
    const double before = callback_seconds_;
    chain_.accept(token);
    result_.tokens.push_back(token);
    emit(stops_.push(decoder_.push(token)));
    if (recorder_) {
        recorder_->add(engine::Stage::detokenize, clock.seconds() - (callback_seconds_ - before));
        recorder_->count({.n_generated = 1});
    }
    if (stops_.matched() < 0) return;
    result_.stop_string = stops_.stop(stops_.matched());
    stop(StopReason::stop_string);
}

void Answer::emit(std::string_view text) {
    if (text.empty()) return;
    result_.text += text;
    if (!options_->on_text) return;
    engine::Stopwatch clock;
    const bool go_on = options_->on_text(text);
    callback_seconds_ += clock.seconds();
    if (!go_on) stop(StopReason::cancelled);
}

void Answer::stop(StopReason reason) {
    if (!over_) result_.stop_reason = reason;
    over_ = true;
}

GenerateResult Answer::finish() {
    if (result_.stop_reason != StopReason::stop_string) {
        emit(stops_.push(decoder_.flush()));
        emit(stops_.flush());
    }
    result_.n_generated = static_cast<std::uint32_t>(result_.tokens.size());
    return std::move(result_);
}

}  // namespace quern
