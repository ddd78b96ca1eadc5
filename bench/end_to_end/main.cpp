// SPDX-License-Identifier: Apache-2.0
// bench: speed of a whole model, with llama-bench's flags, tests and columns.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench/end_to_end/bench.h"
#include "bench/end_to_end/compare.h"
#include "bench/end_to_end/lookup.h"
#include "bench/end_to_end/measure.h"
#include "bench/end_to_end/prefix.h"
#include "bench/end_to_end/presets.h"
#include "bench/end_to_end/server.h"
#include "engine/core/topology.h"
#include "tools/common/options.h"
#include "tools/common/process.h"

namespace quern::bench {
namespace {

using namespace quern::tools;

constexpr const char* kProgram = "bench";
constexpr std::uint32_t kMostTokens = 1 << 24;
constexpr std::uint32_t kMostStreams = 4096;

struct Flags {
    ModelFlags model;  // path, kv_types, n_threads and n_batch come from the lists below
    std::vector<std::string> models, k_types, v_types, kv_types{"f16"};
    std::vector<std::uint32_t> n_prompt{512}, n_gen{128}, n_depth{0}, n_batch{512};
    std::vector<std::uint32_t> n_streams;  // not empty: -p and -n are each stream's
    std::uint32_t n_requests = 32;
    double goal_token_ms = 0, goal_first_token_ms = 0, goal_tokens = 0;  // of --preset server; 0: none
    std::vector<std::string> prompt_and_gen;
    std::vector<int> n_threads{0};
    Repeat repeat;
    bool no_warmup = false, no_roofline = false;
    std::string preset;
    std::vector<std::string> compare;
    std::string output = "md";
};

int all_cores() { return static_cast<int>(engine::read_topology().n_threads); }

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
Result<std::vector<Test>> list_stream_tests(const Flags& f) {
    std::vector<Test> out;
    for (const std::uint32_t streams : f.n_streams) {
        for (const std::uint32_t prompt : f.n_prompt) {
            for (const std::uint32_t gen : f.n_gen) {
                if (prompt == 0 || gen == 0 || f.n_depth != std::vector{0u} || !f.prompt_and_gen.empty()) {
                    return Error{Errc::invalid_argument,
                                 "--streams takes -p and -n of at least 1 for each stream, and neither -d nor -pg"};
                }
                if (std::uint64_t{streams} * (prompt + gen) > kMostTokens) {
                    return Error{Errc::invalid_argument, "--streams: " + std::to_string(streams) + " x " +
                                                             std::to_string(prompt + gen) + " tokens are too many"};
                }
                out.push_back({0, gen, prompt, streams, {}});
            }
        }
    }
    return out;
}

/// Tests for any number of threads.
Result<std::vector<Test>> list_tests(const Flags& f) {
    if (!f.n_streams.empty()) return list_stream_tests(f);
    std::vector<std::pair<std::uint32_t, std::uint32_t>> sizes;
    for (const std::uint32_t n : f.n_prompt) sizes.emplace_back(n, 0);
    for (const std::uint32_t n : f.n_gen) sizes.emplace_back(0, n);
    for (const std::string& text : f.prompt_and_gen) {
        auto pair = parse_pair(text);
        if (!pair) return std::move(pair).error();
        sizes.push_back(*pair);
    }
    std::vector<Test> out;
    for (const std::uint32_t depth : f.n_depth) {
        for (const auto& [prompt, gen] : sizes) {
            if (prompt + gen > 0) out.push_back({prompt, gen, depth, 0, {}});
        }
    }
    if (out.empty()) return Error{Errc::invalid_argument, "nothing to measure: -p and -n are both 0"};
    return out;
}

class Bench {
public:
    Bench(Flags f, std::vector<Test> tests) : f_(std::move(f)), tests_(std::move(tests)) {}

    /// Everything for every model, cache type and batch size. What was measured before an error is in lines() too.
    Status run() {
        for (const std::string& path : f_.models) {
            for (const std::string& kv : f_.kv_types) {
                for (const std::uint32_t n_batch : f_.n_batch) {
                    if (Status s = run_model(path, kv, n_batch); !s) return s;
                }
            }
        }
        return {};
    }

    std::vector<Line> lines() const {
        std::vector<Line> out = lines_;
        if (!rows_.empty()) out.clear();
        const Columns columns{.n_batch = f_.n_batch.size() > 1,
                              .kv_type = f_.kv_types.size() > 1 || f_.kv_types[0] != "f16"};
        for (const Row& r : rows_) out.push_back(to_line(r, columns));
        if (f_.preset == "threads") add_efficiency(rows_, out);
        if (f_.preset == "quants") add_relative(rows_, out);
        return out;
    }

private:
    Status run_model(const std::string& path, const std::string& kv, std::uint32_t n_batch) {
        ModelFlags flags = f_.model;
        flags.kv_types = {kv};
        if (kv == "f16" || kv == "f32") flags.kv_tail.reset();   // meant for the others of the list
        flags.n_batch = n_batch;
        // 0 alone leaves the choice to the model; beside other counts it is that of the cores.
        std::vector<int> threads = f_.n_threads;
        if (threads.size() > 1) std::replace(threads.begin(), threads.end(), 0, all_cores());
        flags.n_threads = *std::max_element(threads.begin(), threads.end());

        ModelOptions options = flags.options(kProgram);
        if (options.tune == Tune::cached) options.tune = may_measure() ? Tune::automatic : Tune::off;
        options.n_ctx = context();
        if (options.tune != Tune::off) options.n_ctx = std::max(options.n_ctx, n_batch);  // room to measure its largest step
        options.prefix_cache = f_.preset == "prefix";  // else the same prompt again and again is what is measured
        if (f_.preset == "prefix") options.kv_sessions = kPrefixSessions;
        const Result<Model> model = load_with_progress(path, std::move(options));
        if (!model) return model.error();
        const ModelCost cost(*model);
        const Setup setup{path, kv, model->info().n_batch, cost.tensor_bytes(), model->info(), model->verify_gpu_utilization()};
        for (const int n : threads) {
            const Threads loaded{setup.info.n_threads, setup.info.n_threads_batch};
            Threads chosen = n ? Threads{n, n} : loaded;
            if (flags.n_threads_batch) chosen.prefill = flags.n_threads_batch;
            if (Status s = run_tests(*model, cost, setup, chosen); !s) return s;
        }
        return {};
    }

    /// Unasked. Other presets compare rows, which needs the same counts, or show memory, which measuring would touch.
    bool may_measure() const { return f_.preset.empty() || f_.preset == "latency"; }

    Status run_tests(const Model& model, const ModelCost& cost, const Setup& setup, Threads threads) {
        if (f_.preset == "latency" || f_.preset == "memory" || f_.preset == "server" || f_.preset == "prefix" || f_.preset == "lookup") {
            auto lines = f_.preset == "memory"
                             ? memory(model, setup, threads, f_.n_depth, progress_)
                         : f_.preset == "server"
                             ? server(model, setup, threads, f_.n_requests, goals(), f_.repeat, progress_)
                         : f_.preset == "prefix"
                             ? prefix(model, setup, threads, f_.repeat, progress_)
                         : f_.preset == "lookup"
                             ? lookup(model, setup, threads, f_.repeat, progress_)
                             : latency(model, setup, threads, f_.n_gen.front(), f_.repeat, progress_);
            if (!lines) return std::move(lines).error();
            lines_.insert(lines_.end(), lines->begin(), lines->end());
            return {};
        }
        for (Test test : tests_) {
            test.threads = threads;
            const bool on_cpu = setup.gpu.device.empty();  // a GPU's limits: program roofline
            if (on_cpu && !f_.no_roofline && !probe_) {
                if (Status s = prepare_probe(); !s) return s;
            }
            Result<Row> row = measure(model, test, f_.repeat, on_cpu ? probe_.get() : nullptr, progress_);
            if (!row) return std::move(row).error();
            row->setup = setup;
            row->cost = cost.of_test(test, setup.n_batch, row->roofline);
            rows_.push_back(std::move(*row));
        }
        return {};
    }

    AdaptOptions goals() const {
        AdaptOptions out;
        out.token_seconds = 1e-3 * f_.goal_token_ms;
        out.first_token_seconds = 1e-3 * f_.goal_first_token_ms;
        out.tokens_per_second = f_.goal_tokens;
        out.on = f_.goal_token_ms + f_.goal_first_token_ms + f_.goal_tokens > 0;
        return out;
    }

    /// For any number of threads that a test may have.
    Status prepare_probe() {
        int most = std::max(all_cores(), f_.model.n_threads_batch);
        for (const int n : f_.n_threads) most = std::max(most, n);
        RooflineOptions options;
        options.on_progress = [this](std::string_view what) { progress_.show("roofline: " + std::string(what), 0, 0); };
        auto probe = RooflineProbe::create(static_cast<unsigned>(most), std::move(options));
        if (!probe) return std::move(probe).error();
        probe_ = std::move(*probe);
        return {};
    }

    std::uint32_t context() const {
        if (f_.preset == "latency") return latency_n_ctx(f_.n_gen.front());
        if (f_.preset == "memory") return f_.n_depth.back();
        if (f_.preset == "server") return server_n_ctx(f_.n_requests);
        if (f_.preset == "prefix") return prefix_n_ctx();
        if (f_.preset == "lookup") return lookup_n_ctx();
        std::uint32_t most = 0;
        for (const Test& t : tests_) most = std::max(most, n_ctx(t));
        return most;
    }

    Flags f_;
    std::vector<Test> tests_;
    std::unique_ptr<RooflineProbe> probe_;
    std::vector<Row> rows_;
    std::vector<Line> lines_;  // of presets that are not lists of tests
    Progress progress_;
};

/// 1, 2, 4, ... and all cores.
std::vector<int> thread_counts() {
    const int all = all_cores();
    std::vector<int> out;
    for (int n = 1; n < all; n *= 2) out.push_back(n);
    out.push_back(all);
    return out;
}

/// Values for the lists that no flag gives.
void set_defaults(const CLI::App& app, Flags& f) {
    const auto set = [&](const char* flag, auto& list, auto values) {
        if (app.count(flag) == 0) list = std::move(values);
    };
    using Counts = std::vector<std::uint32_t>;
    for (const auto& types : {f.v_types, f.k_types})
        if (!types.empty()) f.kv_types = types;
    if (!f.n_streams.empty()) set("--n-prompt", f.n_prompt, Counts{128});
    if (f.preset == "latency") set("--n-gen", f.n_gen, Counts{32});
    if (f.preset == "threads") set("--threads", f.n_threads, thread_counts());
    f.model.batch_given = app.count("--batch-size") > 0 || f.preset == "throughput";
    if (f.preset == "throughput") {
        set("--n-prompt", f.n_prompt, Counts{32, 64, 128, 256, 512, 1024});
        set("--n-gen", f.n_gen, Counts{0});
        set("--batch-size", f.n_batch, Counts{1024});
    }
    if (f.preset == "server" && app.count("--repetitions") == 0) f.repeat.repetitions = 1;
    if (f.preset == "memory") {
        set("--n-depth", f.n_depth, Counts{512, 1024, 2048, 4096, 8192});
        std::sort(f.n_depth.begin(), f.n_depth.end());
    }
}

Status check(const Flags& f) {
    if (f.models.empty()) return Error{Errc::invalid_argument, "-m: which model? Give a GGUF file"};
    if (!f.k_types.empty() && !f.v_types.empty() && f.v_types != f.k_types)
        return Error{Errc::invalid_argument, "--cache-type-v: keys and values are kept in the same format"};
    if (!f.preset.empty() && !f.n_streams.empty())
        return Error{Errc::invalid_argument, "--preset and --streams do not go together"};
    if (f.preset != "server" && f.goal_token_ms + f.goal_first_token_ms + f.goal_tokens > 0)
        return Error{Errc::invalid_argument, "--goal-token-ms, --goal-first-token-ms and --goal-tokens are for --preset server"};
    if (f.preset == "latency" && f.n_gen.front() == 0)
        return Error{Errc::invalid_argument, "--preset latency needs -n of at least 1"};
    if (f.preset == "memory" && f.n_depth.front() == 0)
        return Error{Errc::invalid_argument, "--preset memory needs -d of at least 1: its contexts"};
    return {};
}

int show(const std::string& format, const std::vector<Line>& lines) {
    std::cout << render(format, lines) << std::flush;
    return std::cout ? kExitOk : kExitError;
}

int run(Flags f) {
    if (!f.compare.empty()) {
        const Result<std::vector<Line>> lines = compare(f.compare[0], f.compare[1]);
        return lines ? show(f.output, *lines) : report(kProgram, lines.error());
    }
    if (Status s = check(f); !s) return report(kProgram, s.error());
    Result<std::vector<Test>> tests = list_tests(f);
    if (!tests) return report(kProgram, tests.error());
    const std::string format = f.output;
    Bench bench(std::move(f), std::move(*tests));
    const Status done = bench.run();
    if (!done) {
        if (const auto lines = bench.lines(); !lines.empty()) (void)show(format, lines);
        return report(kProgram, done.error());
    }
    return show(format, bench.lines());
}

void add_flags(CLI::App& app, Flags& f) {
    f.model.add_to(app, /*single_run=*/false);
    const auto several = [&](const char* flag, auto& list, const char* help, const char* type) {
        return app.add_option(flag, list, help)
            ->type_name(type)
            ->allow_extra_args(false)
            ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    };
    const auto counts = [&](const char* flag, auto& list, std::uint32_t least, std::uint32_t most, const char* help) {
        several(flag, list, help, "N,...")->delimiter(',')->check(CLI::Range(least, most))->capture_default_str();
    };
    several("-m,--model", f.models, "GGUF file (of a split model: the first part); several: as often as you like",
            "FILE");
    counts("-p,--n-prompt", f.n_prompt, 0, kMostTokens, "Tokens of prompt; 0: no such test");
    counts("-n,--n-gen", f.n_gen, 0, kMostTokens, "Tokens to generate; 0: no such test");
    several("--prompt-and-gen", f.prompt_and_gen, "A prompt and generation as one test (also -pg)", "P,N");
    counts("-d,--n-depth", f.n_depth, 0, kMostTokens, "Tokens already in the context");
    counts("--streams", f.n_streams, 1, kMostStreams,
           "So many sequences, each of -p prompt tokens, write -n tokens in lockstep (also -npl)");
    app.add_option("--requests", f.n_requests, "How many requests --preset server has")
        ->check(CLI::Range(1u, kMostStreams))
        ->capture_default_str();
    const auto goal = [&](const char* flag, double& value, const char* help) {
        app.add_option(flag, value, help)->check(CLI::Range(0.0, 1e9))->type_name("X")->capture_default_str();
    };
    goal("--goal-token-ms", f.goal_token_ms, "server: the batcher is to keep the 90th percentile between two tokens below; -v tells how");
    goal("--goal-first-token-ms", f.goal_first_token_ms, "server: and the mean time to a first token");
    goal("--goal-tokens", f.goal_tokens, "server: at least so many generated tokens/s in all, which goes before --goal-token-ms");
    counts("-t,--threads", f.n_threads, 0, 4096, "Threads; 0: one a physical core");
    counts("-b,--batch-size", f.n_batch, 1, 4096, "Most prompt tokens in one step");
    const CLI::IsMember kv_types(kKvTypes);
    several("--kv,--cache-type-k", f.k_types, "KV cache: f16 (default), f32, two-tier, q8 or q4 (also -ctk)", "TYPE,...")
        ->delimiter(',')
        ->check(kv_types);
    several("--cache-type-v", f.v_types, "The same for scripts that give both (also -ctv)", "TYPE,...")
        ->delimiter(',')
        ->check(kv_types);
    app.add_option("-r,--repetitions", f.repeat.repetitions, "Runs of each test, after a warm-up")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    app.add_flag("--no-warmup", f.no_warmup, "Time the first run too");
    app.add_flag("--no-roofline", f.no_roofline, "Do not measure the machine's limits first");
    app.add_option(
           "--preset", f.preset,
           "latency: five prompts, time to the first and to each token; memory: contexts (-d); throughput: prompts of "
           "32 to 1024; threads: 1 to all; quants: several -m beside each other; server: many requests (--requests) "
           "through the batcher and one after another; prefix: requests with a known system prompt; lookup: answers with and without prompt lookup")
        ->check(CLI::IsMember({"latency", "memory", "throughput", "threads", "quants", "server", "prefix", "lookup"}));
    app.add_option("--compare", f.compare,
                   "Two files of results (-o json): speeds of B over A, and whether that is more than noise")
        ->expected(2)
        ->multi_option_policy(CLI::MultiOptionPolicy::Throw)
        ->type_name("A.json B.json");
    app.add_option("-o,--output", f.output, "md, csv, json or jsonl")
        ->check(CLI::IsMember({"md", "csv", "json", "jsonl"}))
        ->capture_default_str();
}

}  // namespace
}  // namespace quern::bench

int main(int argc, char** argv) {
    using namespace quern::bench;
    Flags f;
    CLI::App app("Measures prompt reading (pp) and text generation (tg), as llama-bench does.", kProgram);
    quern::tools::describe(app);
    add_flags(app, f);
    if (const auto code = quern::tools::parse(app, argc, argv)) return *code;
    f.repeat.warmup = !f.no_warmup;
    set_defaults(app, f);
    return run(std::move(f));
}
