// SPDX-License-Identifier: Apache-2.0
#include "bench/end_to_end/lookup.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "bench/end_to_end/stats.h"

namespace quern::bench {
namespace {

using Json = nlohmann::ordered_json;
using tools::fixed;

constexpr std::string_view kSource = R"(// A list of readings of one sensor.
class Readings {
public:
    // Adds a reading behind the others.
    void add(double value) {
        values.push_back(value);
        sum += value;
    }

    // How many readings there are.
    int size() const {
        return static_cast<int>(values.size());
    }

    // The mean of all readings, or zero if there are none.
    double mean() const {
        if (values.empty()) {
            return 0;
        }
        return sum / size();
    }

    // The largest reading; there must be one.
    double largest() const {
        double best = values[0];
        for (double value : values) {
            if (value > best) {
                best = value;
            }
        }
        return best;
    }

    // How many readings lie above a limit.
    int above(double limit) const {
        int count = 0;
        for (double value : values) {
            if (value > limit) {
                ++count;
            }
        }
        return count;
    }

    // Forgets all readings.
    void clear() {
        values.clear();
        sum = 0;
    }

private:
    std::vector<double> values;
    double sum = 0;
};
)";
constexpr std::string_view kOld = "values", kNew = "samples";
constexpr std::size_t kBegun = 230;  // bytes of the copy that the prompt has: up to the end of a line
constexpr std::uint32_t kStory = 300, kSeeds = 3;

std::string edited() {
    std::string out(kSource);
    for (std::size_t at = 0; (at = out.find(kOld, at)) != out.npos; at += kNew.size())
        out.replace(at, kOld.size(), kNew);
    return out;
}

struct Task {
    std::string name, prompt, expected;  // expected: what a model that copies without fault says; empty: anything
    GenerateOptions options;
};

std::vector<Task> tasks() {
    std::vector<Task> out(1 + kSeeds);
    const std::string copy = edited();
    out[0] = {"edit", std::string(kSource) + "\n\n" + copy.substr(0, kBegun), copy.substr(kBegun), {}};
    out[0].options.sampler.temperature = 0;
    for (std::uint32_t i = 1; i <= kSeeds; ++i) {
        out[i] = {"story, seed " + std::to_string(i), "Once upon a time in a small village there lived", "", {}};
        out[i].options.sampler = {.temperature = 1, .repeat_penalty = 1.15f, .seed = i};
        out[i].options.max_tokens = kStory;
    }
    for (Task& t : out) t.options.ignore_end_of_generation = true;
    return out;
}

/// Plain and with lookup in turns.
struct Runs {
    std::vector<double> speed[2], ratio;  // tokens a second; of each turn
    GenerateResult last[2];
};

Result<Runs> measure(const Model& model, const Task& task, std::span<const Token> prompt, const Repeat& repeat) {
    Runs out;
    for (int i = repeat.warmup ? -1 : 0; i < repeat.repetitions; ++i) {
        for (const bool ahead : {i % 2 == 0, i % 2 != 0}) {  // none is always the first
            auto session = model.new_session();
            if (!session) return std::move(session).error();
            GenerateOptions o = task.options;
            o.lookup = ahead;
            auto answer = session->generate(prompt, o);
            if (!answer) return std::move(answer).error();
            if (i >= 0) out.speed[ahead].push_back(answer->n_generated / answer->generate_seconds);
            out.last[ahead] = std::move(*answer);
        }
        if (i >= 0) out.ratio.push_back(out.speed[1].back() / out.speed[0].back());
        if (out.last[0].tokens != out.last[1].tokens)
            return Error{Errc::internal, task.name + ": other tokens with lookup than without"};
    }
    return out;
}

Line to_line(const Setup& setup, Threads threads, const Task& task, std::size_t n_prompt, const Runs& runs) {
    const GenerateResult& r = runs.last[1];
    const double plain = percentile(runs.speed[0], 50), ahead = percentile(runs.speed[1], 50),
                 ratio = percentile(runs.ratio, 50);
    const auto same = static_cast<std::size_t>(
        std::mismatch(r.text.begin(), r.text.end(), task.expected.begin(), task.expected.end()).first - r.text.begin());
    const double copied =
        task.expected.empty() ? 0 : static_cast<double>(same) / static_cast<double>(task.expected.size());
    Line out;
    out.fields = model_fields(setup, threads);
    out.fields.update(Json{{"test_time", now_utc()},
                           {"preset", "lookup"},
                           {"text", task.name},
                           {"n_prompt", n_prompt},
                           {"n_gen", r.n_generated},
                           {"copied", task.expected.empty() ? Json() : Json(copied)},
                           {"n_guessed", r.n_guessed},
                           {"n_accepted", r.n_accepted},
                           {"plain_ts", plain},
                           {"lookup_ts", ahead},
                           {"ratio", ratio},
                           {"samples_plain_ts", runs.speed[0]},
                           {"samples_lookup_ts", runs.speed[1]}});
    out.cells = {{"model", model_type(setup)},
                 {"threads", threads.text()},
                 {"text", task.name},
                 {"prompt", std::to_string(n_prompt)},
                 {"generated", std::to_string(r.n_generated)},
                 {"copied", task.expected.empty() ? "-" : fixed(100 * copied, 0) + "%"},
                 {"guessed", std::to_string(r.n_guessed)},
                 {"right", std::to_string(r.n_accepted)},
                 {"plain t/s", fixed(plain, 1)},
                 {"lookup t/s", fixed(ahead, 1)},
                 {"ratio", fixed(ratio, 2)}};
    return out;
}

}  // namespace

/// A token a byte, of the file and its copy, at most.
std::uint32_t lookup_n_ctx() { return static_cast<std::uint32_t>(3 * kSource.size()); }

Result<std::vector<Line>> lookup(const Model& model, const Setup& setup, Threads threads, const Repeat& repeat,
                                 tools::Progress& progress) {
    if (Status s = model.set_threads(threads.decode, threads.prefill); !s) return std::move(s).error();
    std::vector<Line> lines;
    for (Task& task : tasks()) {
        progress.show("lookup: " + task.name, 0, 0);
        const auto prompt = model.tokenize(task.prompt, {.add_special = true});
        if (!prompt) return prompt.error();
        if (!task.expected.empty()) {
            const auto rest = model.tokenize(task.expected);
            if (!rest) return rest.error();
            task.options.max_tokens = static_cast<std::int64_t>(rest->size());
        }
        const auto runs = measure(model, task, *prompt, repeat);
        if (!runs) return runs.error();
        lines.push_back(to_line(setup, threads, task, prompt->size(), *runs));
    }
    progress.clear();
    return lines;
}

}  // namespace quern::bench
