// SPDX-License-Identifier: Apache-2.0
// bench: speed of a whole model, with llama-bench's flags, tests and columns.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <functional>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "bench/end_to_end/bench.h"
#include "bench/end_to_end/streams.h"
#include "engine/api/model_impl.h"
#include "tools/common/options.h"
#include "tools/common/process.h"

namespace quern::bench {
namespace {

using namespace quern::tools;

constexpr const char* kProgram = "bench";
constexpr std::uint32_t kMostTokens = 1 << 24;

struct Flags {
    ModelFlags model;
    std::vector<std::uint32_t> n_prompt{512}, n_gen{128}, n_depth{0};
    std::vector<std::uint32_t> n_streams;   // not empty: -p and -n are each stream's
    std::vector<std::string> prompt_and_gen;
    std::vector<int> n_threads{0};
    int repetitions = 5;
    bool no_warmup = false;
    std::string output = "md";
};

std::string now_utc() {
    const std::time_t now = std::time(nullptr);
    std::tm parts{};
    gmtime_r(&now, &parts);
    char text[32];
    std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
    return text;
}

/// The timed part: a prompt in as few steps as n_batch allows, then tokens one by one, each after the last is done.
Status timed_part(Session& session, std::span<const Token> tokens, const Test& test) {
    if (test.n_prompt > 0) {
        if (Status s = session.decode(tokens.first(test.n_prompt)); !s) return s;
    }
    for (std::uint32_t i = 0; i < test.n_gen; ++i) {
        if (Status s = session.decode(tokens.subspan(test.n_prompt + i, 1)); !s) return s;
    }
    return {};
}

/// A warm-up, then each repetition's time in nanoseconds. between() is not timed.
Result<std::vector<std::uint64_t>> time_runs(const Test& test, const Flags& f, Progress& progress,
                                             const std::function<Status()>& part,
                                             const std::function<Status()>& between) {
    std::vector<std::uint64_t> out;
    for (int i = f.no_warmup ? 0 : -1; i < f.repetitions; ++i) {
        progress.show(test.name() + (i < 0 ? ": warm-up" : ": run " + std::to_string(i + 1)), 0, 0);
        const auto start = std::chrono::steady_clock::now();
        if (Status s = part(); !s) return std::move(s).error();
        const auto spent = std::chrono::steady_clock::now() - start;
        if (i >= 0) {
            const auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(spent).count();
            out.push_back(static_cast<std::uint64_t>(std::max<std::int64_t>(1, ns)));
        }
        if (Status s = between(); !s) return std::move(s).error();
    }
    progress.clear();
    return out;
}

Result<Row> measure_streams(const Model& model, const Test& test, const Flags& f, Progress& progress) {
    engine::Executor& executor = *Internals::of(model).executor;
    Row row{test, now_utc(), {}};
    std::vector<Token> alone;
    for (const std::uint32_t n : {1u, test.n_streams}) {
        progress.show(test.name() + ": prompts", 0, 0);
        Result<Streams> streams = Streams::create(executor, n, test.n_depth, test.n_gen);
        if (!streams) return std::move(streams).error();
        if (alone.empty()) {
            if (Status s = streams->generate(); !s) return std::move(s).error();
            alone.assign(streams->generated(0).begin(), streams->generated(0).end());
            continue;
        }
        const auto same = [&]() -> Status {
            const auto [a, b] = std::mismatch(alone.begin(), alone.end(), streams->generated(0).begin());
            if (a == alone.end()) return {};
            return Error{Errc::internal, test.name() + ": from its token " + std::to_string(a - alone.begin()) +
                                             " on the first stream differs from what it gives alone"};
        };
        auto samples = time_runs(test, f, progress, [&] { return streams->generate(); }, same);
        if (!samples) return std::move(samples).error();
        row.samples_ns = std::move(*samples);
    }
    row.checksum = checksum(alone);
    return row;
}

Result<Row> measure(const Model& model, const Test& test, const Flags& f, Progress& progress) {
    if (Status s = model.set_threads(test.n_threads); !s) return std::move(s).error();
    if (test.n_streams) return measure_streams(model, test, f, progress);
    const std::uint32_t n_timed = test.n_prompt + test.n_gen;
    const std::vector<Token> tokens = random_tokens(n_timed + test.n_depth, model.info().n_vocab, 1);
    const auto part = std::span(tokens).first(n_timed);
    Result<Session> session = model.new_session(n_timed + test.n_depth);
    if (!session) return std::move(session).error();
    Row row{test, now_utc(), {}};
    if (test.n_depth > 0) {
        progress.show(test.name() + ": filling the context", 0, 0);
        if (Status s = session->decode(std::span(tokens).subspan(n_timed)); !s) return std::move(s).error();
    }
    auto samples = time_runs(test, f, progress, [&] { return timed_part(*session, part, test); },
                             [&] { return session->truncate(test.n_depth); });
    if (!samples) return std::move(samples).error();
    row.samples_ns = std::move(*samples);
    return row;
}

/// "512,128" as two counts.
Result<std::pair<std::uint32_t, std::uint32_t>> parse_pair(const std::string& text) {
    unsigned prompt = 0, gen = 0;
    char rest = 0;
    if (std::sscanf(text.c_str(), "%u,%u%c", &prompt, &gen, &rest) != 2 || prompt > kMostTokens || gen > kMostTokens) {
        return Error{Errc::invalid_argument, "-pg: '" + text + "' is not two counts of tokens, as in 512,128"};
    }
    return std::pair{prompt, gen};
}

/// Each stream has a prompt of -p tokens, so that its first token comes from something.
Status check_streams(const Flags& f) {
    const auto zero = [](const std::vector<std::uint32_t>& v) { return std::find(v.begin(), v.end(), 0u) != v.end(); };
    if (f.n_streams.empty() || (!zero(f.n_prompt) && !zero(f.n_gen) && f.n_depth == std::vector{0u} &&
                                f.prompt_and_gen.empty())) {
        return {};
    }
    return Error{Errc::invalid_argument, "--streams takes -p and -n of at least 1 for each stream, and neither -d nor -pg"};
}

Result<std::vector<Test>> list_tests(const Flags& f) {
    if (Status s = check_streams(f); !s) return std::move(s).error();
    std::vector<std::pair<std::uint32_t, std::uint32_t>> sizes;
    for (const std::uint32_t n : f.n_prompt) sizes.emplace_back(n, 0);
    for (const std::uint32_t n : f.n_gen) sizes.emplace_back(0, n);
    for (const std::string& text : f.prompt_and_gen) {
        auto pair = parse_pair(text);
        if (!pair) return std::move(pair).error();
        sizes.push_back(*pair);
    }
    std::vector<Test> out;
    for (const int threads : f.n_threads) {
        for (const std::uint32_t streams : f.n_streams) {
            for (const std::uint32_t prompt : f.n_prompt) {
                for (const std::uint32_t gen : f.n_gen) out.push_back({0, gen, prompt, streams, threads});
            }
        }
        if (!f.n_streams.empty()) continue;
        for (const std::uint32_t depth : f.n_depth) {
            for (const auto& [prompt, gen] : sizes) {
                if (prompt + gen > 0) out.push_back({prompt, gen, depth, 0, threads});
            }
        }
    }
    if (out.empty()) return Error{Errc::invalid_argument, "nothing to measure: -p and -n are both 0"};
    return out;
}

int run(const Flags& f) {
    Result<std::vector<Test>> tests = list_tests(f);
    if (!tests) return report(kProgram, tests.error());
    std::uint32_t n_ctx = 0;
    int most_threads = 0;
    for (const Test& t : *tests) {
        n_ctx = std::max(n_ctx, t.n_streams ? Streams::n_ctx(t.n_streams, t.n_depth, t.n_gen) : t.n_timed() + t.n_depth);
        most_threads = std::max(most_threads, t.n_threads);
    }
    ModelOptions options = f.model.options(kProgram);
    options.n_ctx = n_ctx;
    options.n_threads = most_threads;
    Result<Model> model = load_with_progress(f.model.path, std::move(options));
    if (!model) return report(kProgram, model.error());

    const Setup setup{f.model.path, f.model.kv_type(), f.model.n_batch, model->info()};
    Progress progress;
    std::vector<Row> rows;
    for (Test& test : *tests) {
        if (test.n_threads == 0) test.n_threads = setup.info.n_threads;
        Result<Row> row = measure(*model, test, f, progress);
        if (!row) return report(kProgram, row.error());
        rows.push_back(std::move(*row));
    }
    std::cout << (f.output == "json" ? to_json : f.output == "csv" ? to_csv : to_markdown)(setup, rows) << std::flush;
    return std::cout ? kExitOk : kExitError;
}

}  // namespace
}  // namespace quern::bench

int main(int argc, char** argv) {
    using namespace quern::bench;
    Flags f;
    CLI::App app("Measures prompt reading (pp) and text generation (tg), as llama-bench does.", kProgram);
    quern::tools::describe(app);
    f.model.add_to(app, /*single_run=*/false);
    const auto add_list = [&](const char* flag, auto& list, int least, const char* help) {
        app.add_option(flag, list, help)->delimiter(',')->check(CLI::Range(least, int{kMostTokens}))->type_name("N,...")
            ->allow_extra_args(false)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)->capture_default_str();
    };
    add_list("-p,--n-prompt", f.n_prompt, 0, "Tokens of prompt; 0: no such test");
    add_list("-n,--n-gen", f.n_gen, 0, "Tokens to generate; 0: no such test");
    add_list("-d,--n-depth", f.n_depth, 0, "Tokens already in the context");
    add_list("-t,--threads", f.n_threads, 0, "Threads; 0: one a physical core");
    add_list("--streams", f.n_streams, 1, "So many sequences, each of -p prompt tokens, write -n tokens in lockstep; also -npl");
    app.add_option("--prompt-and-gen", f.prompt_and_gen, "A prompt and generation as one test (also -pg)")
        ->type_name("P,N")->allow_extra_args(false)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    app.add_option("-r,--repetitions", f.repetitions, "Runs of each test, after a warm-up")->check(CLI::Range(1, 1000))
        ->capture_default_str();
    app.add_flag("--no-warmup", f.no_warmup, "Time the first run too");
    app.add_option("-o,--output", f.output, "md, json or csv")->check(CLI::IsMember({"md", "json", "csv"}))
        ->capture_default_str();
    if (const auto code = quern::tools::parse(app, argc, argv)) return *code;
    if (!f.n_streams.empty() && app.count("--n-prompt") == 0) f.n_prompt = {128};
    return run(f);
}
