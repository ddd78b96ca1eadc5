// SPDX-License-Identifier: Apache-2.0
// One run of infer: the model, its session, where text goes, and what is reported at the end.
#pragma once

#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quern/quern.hpp"
#include "tools/common/process.h"
#include "tools/infer/interrupt.h"

namespace quern::tools {

using Clock = std::chrono::steady_clock;

/// Sums over the answers of a run.
struct Totals {
    std::uint64_t n_prompt = 0, n_generated = 0, n_steps = 0;  // the first token of an answer takes no step
    std::uint64_t n_guessed = 0, n_accepted = 0;      // by lookup
    std::uint64_t n_reused = 0;                       // of the prompts: not read, the KV cache had them
    double prompt_seconds = 0, generate_seconds = 0;
    std::optional<double> first_token_seconds;        // of the first answer, from the start of its prompt
    std::optional<double> start_to_first_token;       // from the start of the program
    double prompt_speed() const { return prompt_seconds > 0 ? double(n_prompt - n_reused) / prompt_seconds : 0; }
    double generate_speed() const { return generate_seconds > 0 ? double(n_steps) / generate_seconds : 0; }
};

/// Generates answers in one session, streaming text to standard output unless it is to be JSON.
class Answerer {
public:
    Answerer(Session& session, GenerateOptions options, Interrupts& interrupts, Clock::time_point start, bool stream);

    /// Appends `prompt` and generates. `echo` is printed before the first text. An answer cut by Ctrl-C is no error.
    Result<GenerateResult> answer(const std::vector<Token>& prompt, std::string_view echo = {});

    const Totals& totals() const { return totals_; }
    bool interrupted() const { return interrupts_.requested(); }
    /// False once standard output could not be written.
    bool output_ok() const { return output_ok_; }

private:
    bool write(std::string_view text);

    Session& session_;
    GenerateOptions options_;
    Interrupts& interrupts_;
    Clock::time_point start_;
    bool stream_, output_ok_ = true;
    char last_ = '\n';  // last byte written
    Totals totals_;
};

/// A result as JSON: text, tokens, why it stopped, counts and times in seconds.
nlohmann::ordered_json to_json(const GenerateResult& result);
/// The totals as JSON.
nlohmann::ordered_json to_json(const Totals& totals);
/// The line that ends every run: speeds, time to the first token, peak memory.
std::string summary(const Totals& totals);

}  // namespace quern::tools
