// SPDX-License-Identifier: Apache-2.0
#include "bench/end_to_end/measure.h"

#include <algorithm>
#include <chrono>
#include <ctime>
#include <functional>
#include <utility>

#include "bench/end_to_end/streams.h"
#include "engine/api/model_impl.h"

namespace quern::bench {
namespace {

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

/// How a test is repeated; what it finds goes to `row`.
struct Runs {
    const Repeat& repeat;
    RooflineProbe* probe;
    tools::Progress& progress;
    Row& row;

    /// A warm-up, then each repetition's time, the limits before, between and after them. between() is not timed.
    Status time(const std::function<Status()>& part, const std::function<Status()>& between) const {
        for (int i = repeat.warmup ? -1 : 0; i < repeat.repetitions; ++i) {
            progress.show(row.test.name() + (i < 0 ? ": warm-up" : ": run " + std::to_string(i + 1)), 0, 0);
            if (i == 0) {
                if (Status s = add_limits(); !s) return s;
            }
            const auto start = std::chrono::steady_clock::now();
            if (Status s = part(); !s) return std::move(s).error();
            const auto spent = std::chrono::steady_clock::now() - start;
            if (i >= 0) {
                const auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(spent).count();
                row.samples_ns.push_back(static_cast<std::uint64_t>(std::max<std::int64_t>(1, ns)));
                if (Status s = add_limits(); !s) return s;
            }
            if (Status s = between(); !s) return std::move(s).error();
        }
        progress.clear();
        return {};
    }

private:
    Status add_limits() const {
        if (!probe) return {};
        const auto now = probe->now(static_cast<unsigned>(row.test.n_threads_timed()));
        if (!now) return now.error();
        bench::add_limits(row.roofline, *now, 1.0 / (repeat.repetitions + 1));
        return {};
    }
};

/// What the first stream generates when no other runs.
Result<std::vector<Token>> first_stream_alone(engine::Executor& executor, const Test& test) {
    Result<Streams> one = Streams::create(executor, 1, test.n_depth, test.n_gen);
    if (!one) return std::move(one).error();
    if (Status s = one->generate(); !s) return std::move(s).error();
    return std::vector<Token>(one->generated(0).begin(), one->generated(0).end());
}

Status measure_streams(const Model& model, const Runs& runs) {
    Row& row = runs.row;
    const Test& test = row.test;
    engine::Executor& executor = *Internals::of(model).executor;
    runs.progress.show(test.name() + ": prompts", 0, 0);
    const Result<std::vector<Token>> alone = first_stream_alone(executor, test);
    if (!alone) return alone.error();
    Result<Streams> streams = Streams::create(executor, test.n_streams, test.n_depth, test.n_gen);
    if (!streams) return std::move(streams).error();
    const auto same = [&]() -> Status {
        if (executor.offload().device) return {};   // other batches, other kernels there: docs/vulkan.md
        const auto [a, b] = std::mismatch(alone->begin(), alone->end(), streams->generated(0).begin());
        if (a == alone->end()) return {};
        return Error{Errc::internal, test.name() + ": from its token " + std::to_string(a - alone->begin()) +
                                         " on the first stream differs from what it gives alone"};
    };
    row.checksum = checksum(*alone);
    return runs.time([&] { return streams->generate(); }, same);
}

Status measure_session(const Model& model, const Runs& runs) {
    const Test& test = runs.row.test;
    const std::uint32_t n_timed = test.n_timed();
    const std::vector<Token> tokens = random_tokens(n_timed + test.n_depth, model.info().n_vocab, 1);
    const auto part = std::span(tokens).first(n_timed);
    Result<Session> session = model.new_session(n_ctx(test));
    if (!session) return std::move(session).error();
    if (test.n_depth > 0) {
        runs.progress.show(test.name() + ": filling the context", 0, 0);
        if (Status s = session->decode(std::span(tokens).subspan(n_timed)); !s) return s;
    }
    const auto back = [&]() -> Status {
        if (Status s = session->truncate(test.n_depth); !s) return s;
        // Where a cache of two tiers has given up what the next token needs exact, the whole context is read again.
        engine::Sequence& sequence = Internals::of(*session).sequence;
        return sequence.n_waiting() > 0 ? sequence.run() : Status{};
    };
    return runs.time([&] { return timed_part(*session, part, test); }, back);
}

}  // namespace

std::string now_utc() {
    const std::time_t now = std::time(nullptr);
    std::tm parts{};
    gmtime_r(&now, &parts);
    char text[32];
    std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
    return text;
}

std::uint32_t n_ctx(const Test& test) {
    return test.n_streams ? Streams::n_ctx(test.n_streams, test.n_depth, test.n_gen) : test.n_timed() + test.n_depth;
}

Result<Row> measure(const Model& model, const Test& test, const Repeat& repeat, RooflineProbe* probe,
                    tools::Progress& progress) {
    if (Status s = model.set_threads(test.threads.decode, test.threads.prefill); !s) return std::move(s).error();
    Row row;
    row.test = test;
    row.test_time = now_utc();
    const auto kind = test.n_streams ? measure_streams : measure_session;
    const engine::Executor& executor = *Internals::of(model).executor;
    const auto of_runs = [&] {
        const engine::RunTotals t = executor.totals();
        return std::pair(t.decode.seconds + t.prefill.seconds, t.decode.device_seconds + t.prefill.device_seconds);
    };
    const auto before = of_runs();
    if (Status s = kind(model, {repeat, probe, progress, row}); !s) return std::move(s).error();
    const auto after = of_runs();
    row.device_share = (after.second - before.second) / (after.first - before.first);
    return row;
}

}  // namespace quern::bench
