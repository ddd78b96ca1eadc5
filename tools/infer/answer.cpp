// SPDX-License-Identifier: Apache-2.0
#include "tools/infer/answer.h"

#include <cstdio>
#include <utility>

namespace quern::tools {

Answerer::Answerer(Session& session, GenerateOptions options, Interrupts& interrupts, Clock::time_point start,
                   bool stream)
    : session_(session), options_(std::move(options)), interrupts_(interrupts), start_(start), stream_(stream) {}

bool Answerer::write(std::string_view text) {
    if (!stream_ || text.empty()) return true;
    last_ = text.back();
    output_ok_ = output_ok_ && std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
    return output_ok_;
}

Result<GenerateResult> Answerer::answer(const std::vector<Token>& prompt, std::string_view echo) {
    const Interrupts::Answer guard(interrupts_, session_);
    const Clock::time_point begin = Clock::now();
    Progress progress;
    GenerateOptions options = options_;
    options.on_prefill = [&](std::uint32_t done, std::uint32_t total) {
        progress.show("reading the prompt", done, total);
        if (done == total) {
            progress.clear();
            write(echo);
        }
        return !interrupts_.requested() && output_ok_;
    };
    options.on_text = [&](std::string_view text) {
        return write(text) && !interrupts_.requested();
    };
    Result<GenerateResult> result = session_.generate(prompt, options);
    progress.clear();
    if (last_ != '\n') write("\n");
    if (!result) return result;

    if (!totals_.first_token_seconds && result->n_generated > 0) {
        totals_.first_token_seconds = result->first_token_seconds;
        totals_.start_to_first_token =
            std::chrono::duration<double>(begin - start_).count() + result->first_token_seconds;
    }
    totals_.n_prompt += result->n_prompt;
    totals_.n_reused += result->n_reused;
    totals_.n_guessed += result->n_guessed;
    totals_.n_accepted += result->n_accepted;
    totals_.n_generated += result->n_generated;
    totals_.n_steps += result->n_generated > 0 ? result->n_generated - 1 : 0;
    totals_.prompt_seconds += result->prompt_seconds;
    totals_.generate_seconds += result->generate_seconds;
    return result;
}

nlohmann::ordered_json to_json(const GenerateResult& result) {
    return {{"text", result.text},
            {"stop_reason", to_string(result.stop_reason)},
            {"stop_string", result.stop_string},
            {"tokens", result.tokens},
            {"n_prompt", result.n_prompt},
            {"n_reused", result.n_reused},
            {"n_dropped", result.n_dropped},
            {"n_generated", result.n_generated}};
}

nlohmann::ordered_json to_json(const Totals& totals) {
    return {{"n_prompt", totals.n_prompt},
            {"n_reused", totals.n_reused},
            {"n_guessed", totals.n_guessed},
            {"n_accepted", totals.n_accepted},
            {"n_generated", totals.n_generated},
            {"prompt_seconds", totals.prompt_seconds},
            {"generate_seconds", totals.generate_seconds},
            {"prompt_tokens_per_second", totals.prompt_speed()},
            {"generate_tokens_per_second", totals.generate_speed()},
            {"first_token_seconds", totals.first_token_seconds.value_or(0)},
            {"start_to_first_token_seconds", totals.start_to_first_token.value_or(0)},
            {"peak_memory_bytes", peak_memory_bytes()}};
}

std::string summary(const Totals& totals) {
    const std::string reused = totals.n_reused ? " (" + std::to_string(totals.n_reused) + " reused)" : "";
    std::string out = "prompt " + std::to_string(totals.n_prompt) + " tokens" + reused + ", " + fixed(totals.prompt_speed(), 1) +
                      " tokens/s | generated " + std::to_string(totals.n_generated) + " tokens, " +
                      fixed(totals.generate_speed(), 1) + " tokens/s | first token ";
    if (totals.first_token_seconds) {
        out += fixed(*totals.first_token_seconds, 3) + " s (" + fixed(*totals.start_to_first_token, 3) +
               " s after start)";
    } else {
        out += "none";
    }
    if (totals.n_guessed) out += " | " + std::to_string(totals.n_accepted) + " of " + std::to_string(totals.n_guessed) + " guesses right";
    return out + " | peak memory " + human_bytes(peak_memory_bytes());
}

}  // namespace quern::tools
