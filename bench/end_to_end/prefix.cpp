// SPDX-License-Identifier: Apache-2.0
#include "bench/end_to_end/prefix.h"

#include <string>

#include "bench/end_to_end/stats.h"
#include "bench/end_to_end/streams.h"

namespace quern::bench {
namespace {

using Json = nlohmann::ordered_json;
using tools::fixed;

constexpr std::uint32_t kSystem = 1000, kOwn[] = {32, 64, 128};

GenerateOptions one_token() {
    GenerateOptions o;
    o.sampler.temperature = 0;
    o.max_tokens = 1;
    o.ignore_end_of_generation = true;
    return o;
}

class Measurement {
public:
    Measurement(const Model& model, Batcher& batcher, Session& session)
        : model_(model), batcher_(batcher), session_(session), system_(tokens(kSystem)) {}

    /// The system prompt is read, by batcher and session.
    Status prepare() {
        if (const auto ms = request(system_, 1); !ms) return ms.error();
        return session_.decode(system_);
    }

    /// Milliseconds to the first token of a request of `start` and n other tokens.
    Result<double> request(const std::vector<Token>& start, std::uint32_t n) {
        Request r;
        r.prompt = start;
        const std::vector<Token> own = tokens(n);
        r.prompt.insert(r.prompt.end(), own.begin(), own.end());
        r.options = one_token();
        const auto ticket = batcher_.submit(std::move(r));
        if (!ticket) return ticket.error();
        batcher_.run_until_idle();
        if (!ticket->result()) return ticket->result().error();
        last_reused_ = ticket->metrics().n_reused;
        return 1e3 * ticket->metrics().first_token_seconds;
    }
    Result<double> known(std::uint32_t n) {
        auto ms = request(system_, n);
        n_reused_ = last_reused_;
        return ms;
    }
    Result<double> unknown(std::uint32_t n) { return request(tokens(kSystem), n); }

    /// The same of n tokens behind what the session has read.
    Result<double> own(std::uint32_t n) {
        const auto answer = session_.generate(tokens(n), one_token());
        if (!answer) return answer.error();
        if (Status s = session_.truncate(kSystem); !s) return std::move(s).error();
        return 1e3 * answer->first_token_seconds;
    }

    /// Of the last known(): tokens that the cache had.
    std::uint32_t n_reused() const { return n_reused_; }

private:
    /// Others each time, so that nothing has read them.
    std::vector<Token> tokens(std::uint32_t n) { return random_tokens(n, model_.info().n_vocab, ++seed_); }

    const Model& model_;
    Batcher& batcher_;
    Session& session_;
    std::uint32_t seed_ = 0, last_reused_ = 0, n_reused_ = 0;
    const std::vector<Token> system_;
};

}  // namespace

std::uint32_t prefix_n_ctx() { return 4 * (kSystem + 256); }

Result<std::vector<Line>> prefix(const Model& model, const Setup& setup, Threads threads, const Repeat& repeat,
                                 tools::Progress& progress) {
    if (Status s = model.set_threads(threads.decode, threads.prefill); !s) return std::move(s).error();
    auto batcher = Batcher::create(model);
    if (!batcher) return std::move(batcher).error();
    auto session = model.new_session(kSystem + 256);
    if (!session) return std::move(session).error();
    Measurement measurement(model, *batcher, *session);
    if (Status s = measurement.prepare(); !s) return std::move(s).error();
    std::vector<Line> lines;
    for (const std::uint32_t n : kOwn) {
        progress.show("prefix: " + std::to_string(n) + " tokens", 0, 0);
        std::vector<double> known, own, unknown;
        for (int i = repeat.warmup ? -1 : 0; i < repeat.repetitions; ++i) {
            const auto a = measurement.known(n), b = measurement.own(n), c = measurement.unknown(n);
            for (const auto* r : {&a, &b, &c})
                if (!*r) return r->error();
            if (i < 0) continue;
            known.push_back(*a);
            own.push_back(*b);
            unknown.push_back(*c);
        }
        const double k = percentile(known, 50), o = percentile(own, 50), u = percentile(unknown, 50);
        Line line;
        line.fields = model_fields(setup, threads);
        line.fields.update(Json{{"test_time", now_utc()},
                                {"preset", "prefix"},
                                {"n_system", kSystem},
                                {"n_prompt", n},
                                {"n_reused", measurement.n_reused()},
                                {"known_ms", k},
                                {"own_ms", o},
                                {"unknown_ms", u},
                                {"ratio", k / o}});
        line.cells = {{"model", model_type(setup)}, {"threads", threads.text()},    {"own tokens", std::to_string(n)},
                      {"known, ms", fixed(k, 1)},   {"own alone, ms", fixed(o, 1)}, {"ratio", fixed(k / o, 2)},
                      {"unknown, ms", fixed(u, 1)}};
        lines.push_back(std::move(line));
    }
    progress.clear();
    return lines;
}

}  // namespace quern::bench
