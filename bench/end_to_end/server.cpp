// SPDX-License-Identifier: Apache-2.0
#include "bench/end_to_end/server.h"

#include <algorithm>
#include <limits>
#include <random>

#include "bench/end_to_end/stats.h"
#include "bench/end_to_end/streams.h"
#include "engine/core/clock.h"

namespace quern::bench {
namespace {

using Json = nlohmann::ordered_json;
using tools::fixed;

constexpr std::uint32_t kLeastPrompt = 64, kMostPrompt = 1024, kLeastAnswer = 32, kMostAnswer = 256;

struct Run {
    double seconds = 0;
    std::vector<std::vector<Token>> answers;
    std::vector<double> first_token_ms;  // from when all were there
    BatchMetrics metrics;                // of the batcher
};

/// The same for the same n_vocab.
std::vector<Request> make_requests(std::uint32_t n, std::uint32_t n_vocab) {
    std::mt19937 random(1);
    const auto pick = [&](std::uint32_t least, std::uint32_t most) {
        return least + static_cast<std::uint32_t>(random() % (most - least + 1));
    };
    std::vector<Request> out(n);
    for (std::uint32_t i = 0; i < n; ++i) {
        out[i].prompt = random_tokens(pick(kLeastPrompt, kMostPrompt), n_vocab, i + 1);
        out[i].options.max_tokens = pick(kLeastAnswer, kMostAnswer);
        out[i].options.sampler.temperature = 0;
        out[i].options.ignore_end_of_generation = true;
    }
    return out;
}

Result<Run> one_after_another(const Model& model, std::span<const Request> requests, tools::Progress& progress) {
    Run out;
    auto session = model.new_session(kMostPrompt + kMostAnswer);
    if (!session) return std::move(session).error();
    const engine::Stopwatch clock;
    for (std::size_t i = 0; i < requests.size(); ++i) {
        progress.show("one after another: request " + std::to_string(i + 1), 0, 0);
        const double begin = clock.seconds();
        auto answer = session->generate(requests[i].prompt, requests[i].options);
        if (!answer) return std::move(answer).error();
        out.first_token_ms.push_back(1e3 * (begin + answer->first_token_seconds));
        out.answers.push_back(std::move(answer->tokens));
        if (Status s = session->truncate(0); !s) return std::move(s).error();
    }
    out.seconds = clock.seconds();
    return out;
}

Result<Run> batched(const Model& model, std::span<const Request> requests, const AdaptOptions& goals,
                    tools::Progress& progress) {
    Run out;
    BatcherOptions options;
    options.n_ctx = kMostPrompt + kMostAnswer;
    options.max_waiting = static_cast<std::uint32_t>(requests.size());
    options.adapt = goals;
    auto batcher = Batcher::create(model, options);
    if (!batcher) return std::move(batcher).error();
    const engine::Stopwatch clock;
    std::vector<Ticket> tickets;
    for (const Request& r : requests) {
        auto ticket = batcher->submit(r);
        if (!ticket) return std::move(ticket).error();
        tickets.push_back(std::move(*ticket));
    }
    progress.show("batched", 0, 0);
    batcher->run_until_idle();
    out.seconds = clock.seconds();
    for (const Ticket& t : tickets) {
        if (!t.result()) return t.result().error();
        out.first_token_ms.push_back(1e3 * t.metrics().first_token_seconds);
        out.answers.push_back(t.result()->tokens);
    }
    out.metrics = batcher->metrics();
    return out;
}

Line to_line(const Setup& setup, Threads threads, const Run& alone, const Run& batch) {
    const BatchMetrics& m = batch.metrics;
    Line out;
    out.fields = model_fields(setup, threads);
    out.fields.update(Json{{"test_time", now_utc()},
                           {"preset", "server"},
                           {"n_requests", alone.answers.size()},
                           {"n_prompt", m.n_prompt},
                           {"n_gen", m.n_generated},
                           {"alone_seconds", alone.seconds},
                           {"batched_seconds", batch.seconds},
                           {"ratio", alone.seconds / batch.seconds},
                           {"batcher", Json::parse(m.to_json())}});
    const auto tokens = static_cast<double>(m.n_prompt + m.n_generated);
    out.cells = {{"model", model_type(setup)},
                 {"threads", threads.text()},
                 {"requests", std::to_string(alone.answers.size())},
                 {"prompt", std::to_string(m.n_prompt)},
                 {"generated", std::to_string(m.n_generated)},
                 {"one by one, s", fixed(alone.seconds, 2)},
                 {"batched, s", fixed(batch.seconds, 2)},
                 {"ratio", fixed(alone.seconds / batch.seconds, 2)},
                 {"t/s", fixed(tokens / batch.seconds, 1)},
                 {"first p50, ms", fixed(percentile(batch.first_token_ms, 50), 0)},
                 {"first p95, ms", fixed(percentile(batch.first_token_ms, 95), 0)},
                 {"one by one p50", fixed(percentile(alone.first_token_ms, 50), 0)},
                 {"sequences", fixed(m.mean_sequences, 1)}};
    return out;
}

/// What was asked for, what came of it, and the settings that it ended with.
void add_goals(Line& line, const AdaptOptions& goals, const BatchMetrics& m) {
    const double token_ms = 1e3 * m.token.p90;
    line.fields.update(Json{{"goal_token_ms", 1e3 * goals.token_seconds},
                            {"goal_first_token_ms", 1e3 * goals.first_token_seconds},
                            {"goal_tokens_per_second", goals.tokens_per_second},
                            {"token_ms_p90", token_ms},
                            {"max_running", m.max_running},
                            {"n_prefill", m.n_prefill}});
    line.cells.emplace_back("each p90, ms", fixed(token_ms, 1));
    line.cells.emplace_back("generated/s", fixed(m.tokens_per_second, 1));
    line.cells.emplace_back("running, prefill at the end", std::to_string(m.max_running) + ", " + std::to_string(m.n_prefill));
}

}  // namespace

std::uint32_t server_n_ctx(std::uint32_t n_requests) {
    return Streams::n_ctx(std::min(n_requests, BatcherOptions{}.max_running), kMostPrompt, kMostAnswer);
}

Result<std::vector<Line>> server(const Model& model, const Setup& setup, Threads threads, std::uint32_t n_requests,
                                 const AdaptOptions& goals, const Repeat& repeat, tools::Progress& progress) {
    if (Status s = model.set_threads(threads.decode, threads.prefill); !s) return std::move(s).error();
    const std::vector<Request> requests = make_requests(n_requests, model.info().n_vocab);
    if (repeat.warmup)
        if (auto run = one_after_another(model, std::span(requests).first(1), progress); !run)
            return std::move(run).error();
    std::optional<Run> alone, batch;
    for (int i = 0; i < repeat.repetitions; ++i) {
        auto a = one_after_another(model, requests, progress);
        if (!a) return std::move(a).error();
        auto b = batched(model, requests, goals, progress);
        if (!b) return std::move(b).error();
        if (a->answers != b->answers)
            return Error{Errc::internal, "the batcher gave other tokens than sessions one after another"};
        if (!alone || a->seconds < alone->seconds) alone = std::move(*a);
        if (!batch || b->seconds < batch->seconds) batch = std::move(*b);
    }
    progress.clear();
    Line line = to_line(setup, threads, *alone, *batch);
    if (goals.on) add_goals(line, goals, batch->metrics);
    return std::vector{std::move(line)};
}

}  // namespace quern::bench
