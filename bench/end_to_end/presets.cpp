// SPDX-License-Identifier: Apache-2.0
#include "bench/end_to_end/presets.h"

#include <algorithm>

#include "bench/end_to_end/prompts.h"
#include "bench/end_to_end/stats.h"
#include "bench/end_to_end/streams.h"
#include "engine/api/model_impl.h"
#include "engine/core/clock.h"

namespace quern::bench {
namespace {

using Json = nlohmann::ordered_json;
using engine::Stopwatch;
using tools::fixed;

struct Times {
    std::vector<double> first, each;  // milliseconds
};

/// One answer: the prompt up to its first token, then n_gen - 1 more.
Status answer(const Model& model, Session& session, std::span<const Token> prompt, std::uint32_t n_gen, Times& times) {
    const kernels::KernelTable& table = Internals::of(model).executor->table();
    std::span<const Token> next = prompt;
    Token best = 0;
    for (std::uint32_t i = 0; i < n_gen; ++i) {
        const Stopwatch clock;
        if (Status s = session.decode(next); !s) return s;
        best = static_cast<Token>(table.argmax(session.logits().data(), model.info().n_vocab));
        (i == 0 ? times.first : times.each).push_back(1e3 * clock.seconds());
        next = {&best, 1};
    }
    return session.truncate(0);
}

Line latency_line(const Setup& setup, Threads threads, const char* prompt, std::size_t n_prompt, std::uint32_t n_gen,
                  const Times& t) {
    const auto at = [](const std::vector<double>& v, double p) { return v.empty() ? 0 : percentile(v, p); };
    Line out;
    out.fields = model_fields(setup, threads);
    out.fields.update(Json{
        {"test_time", now_utc()}, {"preset", "latency"}, {"prompt", prompt}, {"n_prompt", n_prompt}, {"n_gen", n_gen}});
    out.cells = {{"model", model_type(setup)},
                 {"threads", threads.text()},
                 {"prompt", prompt},
                 {"tokens", std::to_string(n_prompt)}};
    const auto add = [&](const char* key, const char* heading, double value) {
        out.fields[key] = value;
        out.cells.emplace_back(heading, fixed(value, 2));
    };
    add("first_token_ms_p50", "first p50, ms", at(t.first, 50));
    add("first_token_ms_p95", "first p95, ms", at(t.first, 95));
    add("token_ms_p50", "each p50, ms", at(t.each, 50));
    add("token_ms_p95", "each p95, ms", at(t.each, 95));
    out.fields["samples_first_token_ms"] = t.first;
    out.fields["samples_token_ms"] = t.each;
    return out;
}

bool same_but_threads(const Row& a, const Row& b) {
    return a.test.name() == b.test.name() && a.setup.model_path == b.setup.model_path &&
           a.setup.kv_type == b.setup.kv_type && a.setup.n_batch == b.setup.n_batch;
}

template <class Speed>
void add_share(std::vector<Line>& lines, const char* key, const std::vector<Row>& rows, const Speed& reference) {
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const double most = reference(rows[i]);
        lines[i].fields[key] = most > 0 ? Json(rows[i].avg_ts() / most) : Json();
        lines[i].cells.emplace_back(key, most > 0 ? fixed(rows[i].avg_ts() / most, 2) : "-");
    }
}

}  // namespace

std::uint32_t latency_n_ctx(std::uint32_t n_gen) {
    std::size_t most = 0;
    for (const Prompt& p : prompts()) most = std::max(most, p.text.size());
    return static_cast<std::uint32_t>(most) + 16 + n_gen;  // 16: what a tokenizer adds before and behind
}

Result<std::vector<Line>> latency(const Model& model, const Setup& setup, Threads threads, std::uint32_t n_gen,
                                  const Repeat& repeat, tools::Progress& progress) {
    if (Status s = model.set_threads(threads.decode, threads.prefill); !s) return std::move(s).error();
    std::vector<Line> out;
    for (const Prompt& p : prompts()) {
        const auto tokens = model.tokenize(p.text, {.add_special = true});
        if (!tokens) return tokens.error();
        Result<Session> session = model.new_session(static_cast<std::uint32_t>(tokens->size()) + n_gen);
        if (!session) return std::move(session).error();
        Times times, warmup;
        for (int i = repeat.warmup ? -1 : 0; i < repeat.repetitions; ++i) {
            progress.show(std::string(p.name) + (i < 0 ? ": warm-up" : ": run " + std::to_string(i + 1)), 0, 0);
            if (Status s = answer(model, *session, *tokens, n_gen, i < 0 ? warmup : times); !s)
                return std::move(s).error();
        }
        out.push_back(latency_line(setup, threads, p.name, tokens->size(), n_gen, times));
    }
    progress.clear();
    return out;
}

Result<std::vector<Line>> memory(const Model& model, const Setup& setup, Threads threads,
                                 const std::vector<std::uint32_t>& contexts, tools::Progress& progress) {
    if (Status s = model.set_threads(threads.decode, threads.prefill); !s) return std::move(s).error();
    Result<Session> session = model.new_session(contexts.back());
    if (!session) return std::move(session).error();
    const std::vector<Token> tokens = random_tokens(contexts.back(), model.info().n_vocab, 1);
    std::vector<Line> out;
    std::uint32_t done = 0;
    for (const std::uint32_t n : contexts) {
        progress.show("context of " + std::to_string(n), 0, 0);
        if (Status s = session->decode(std::span(tokens).subspan(done, n - done)); !s) return std::move(s).error();
        done = n;
        const MemoryReport report = model.memory_report();
        const std::uint64_t resident = tools::resident_memory_bytes();
        Line line;
        line.fields = model_fields(setup, threads);
        line.fields.update(Json{{"test_time", now_utc()},
                                {"preset", "memory"},
                                {"n_ctx", n},
                                {"kv_bytes", report.kv_used},
                                {"kv_bytes_per_token", report.kv_bytes_per_token},
                                {"buffer_bytes", report.buffers},
                                {"weight_bytes", report.weights_packed + report.weights_mapped},
                                {"resident_bytes", resident}});
        line.cells = {{"model", model_type(setup)},
                      {"size", tools::human_bytes(setup.tensor_bytes)},
                      {"KV type", setup.kv_type},
                      {"context", std::to_string(n)},
                      {"KV cache", tools::human_bytes(report.kv_used)},
                      {"resident", tools::human_bytes(resident)}};
        out.push_back(std::move(line));
    }
    progress.clear();
    return out;
}

void add_efficiency(const std::vector<Row>& rows, std::vector<Line>& lines) {
    add_share(lines, "efficiency", rows, [&](const Row& row) {
        for (const Row& one : rows) {
            if (one.test.n_threads_timed() == 1 && same_but_threads(one, row))
                return one.avg_ts() * row.test.n_threads_timed();
        }
        return 0.0;
    });
}

void add_relative(const std::vector<Row>& rows, std::vector<Line>& lines) {
    add_share(lines, "relative", rows, [&](const Row& row) {
        double most = 0;
        for (const Row& other : rows) {
            if (other.test.name() == row.test.name() && other.test.threads == row.test.threads)
                most = std::max(most, other.avg_ts());
        }
        return most;
    });
}

}  // namespace quern::bench
