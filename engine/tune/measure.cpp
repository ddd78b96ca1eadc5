// SPDX-License-Identifier: Apache-2.0
#include "engine/tune/measure.h"

#include <algorithm>
#include <cmath>

namespace quern::engine {
namespace {

constexpr std::uint32_t kMostTokens = 1024, kFewTokens = 128;
// Long enough that interrupts and wake-ups vanish in it, short enough that all candidates have their turns.
constexpr double kDecodeSeconds = 0.010, kPrefillSeconds = 0.025;
// A single layer that takes longer is measured on fewer tokens.
constexpr double kSlowLayer = 0.100;

}  // namespace

void TuneMeter::Forecast::learn(std::uint32_t threads, double seconds) {
    const double t = seconds * threads;
    thread_seconds = thread_seconds == 0 ? t : std::min(thread_seconds, t);
}

Result<std::unique_ptr<TuneMeter>> TuneMeter::create(Executor& executor, const TuneCandidates& c, double seconds) {
    std::unique_ptr<TuneMeter> m(new TuneMeter(executor, seconds));
    PagePool& pool = executor.pages();
    const std::uint32_t page = pool.shape().page_tokens;
    const std::uint32_t want = std::min(kMostTokens, *std::max_element(c.batch.begin(), c.batch.end()));
    const std::uint32_t held = executor.tiers().on ? executor.tiers().quantized(want) : want;
    m->ring_ = ExactRing(executor.exact_pages(), executor.tiers());
    if (!m->ring_.reserve(want) || !m->ring_.own(0, want) || !pool.take((held + page - 1) / page, m->pages_)) {
        return Error{Errc::context_full, "the KV cache has no room for a measurement of " + std::to_string(want) +
                                             " tokens; tune before there are sessions, or load with a larger context"};
    }
    m->n_prefill_ = want;
    const std::uint32_t n_vocab = executor.hparams().n_vocab;
    std::uint32_t random = 1;
    for (std::uint32_t i = 0; i < m->n_prefill_; ++i) {
        random = random * 1664525u + 1013904223u;
        m->tokens_.push_back(static_cast<std::int32_t>(random % n_vocab));
    }
    m->logits_.resize(n_vocab);
    m->choose_sizes(c.decode.front(), c.prefill.front());
    return m;
}

TuneMeter::~TuneMeter() {
    for (const std::uint32_t page : pages_) executor_.pages().release(page);
}

/// Runs each kind once, which also warms caches and clocks, and fits the measurements to what that took.
void TuneMeter::choose_sizes(std::uint32_t threads_decode, std::uint32_t threads_prefill) {
    const std::uint32_t layers = std::max(2u, executor_.hparams().n_layer) - 1;
    const auto times = [](double seconds, double one) { return one > 0 ? std::floor(seconds / one) : 1.0; };
    Stopwatch clock;
    const std::uint32_t all = n_prefill_;
    n_prefill_ = std::min(all, kFewTokens);
    run_prefill(threads_prefill, n_prefill_);
    double one = clock.seconds() * all / n_prefill_;
    if (one > kSlowLayer) {
        one = clock.seconds();
    } else {
        n_prefill_ = all;
    }
    n_layers_ = static_cast<std::uint32_t>(std::clamp(times(kPrefillSeconds, one), 1.0, double(layers)));
    prefill_forecast_.learn(threads_prefill, one * n_layers_);
    clock.restart();
    run_decode(threads_decode);
    one = clock.seconds();
    n_decode_ = static_cast<std::uint32_t>(std::clamp(times(kDecodeSeconds, one), 1.0, 64.0));
    decode_forecast_.learn(threads_decode, one * n_decode_);
}

bool TuneMeter::run_decode(std::uint32_t threads) {
    const SeqChunk chunk{pages_.data(), 0, 1, static_cast<std::int32_t>(n_prefill_) - 1, ring_.table()};
    const std::uint32_t output = 0;
    const RunArgs args{std::span(tokens_).first(1), {&chunk, 1}, {&output, 1}, logits_.data(), logits_.size()};
    for (std::uint32_t i = 0; i < n_decode_; ++i)
        if (!executor_.probe(args, threads, {})) return false;
    return true;
}

bool TuneMeter::run_prefill(std::uint32_t threads, std::uint32_t batch) {
    // The last layer works only on tokens whose logits are wanted.
    const std::uint32_t usable = std::max(2u, executor_.hparams().n_layer) - 1;
    std::uint32_t step = 0;
    for (std::uint32_t at = 0, n; at < n_prefill_; at += n, ++step) {
        n = std::min(batch, n_prefill_ - at);
        const SeqChunk chunk{pages_.data(), 0, n, static_cast<std::int32_t>(at), ring_.table()};
        const RunArgs args{std::span(tokens_).subspan(at, n), {&chunk, 1}, {}, nullptr, logits_.size()};
        const std::uint32_t first = step * n_layers_ % (usable - n_layers_ + 1);
        if (!executor_.probe(args, threads, {first, n_layers_})) return false;
    }
    return true;
}

std::optional<double> TuneMeter::decode(std::uint32_t threads) {
    if (!fits(decode_forecast_(threads))) return std::nullopt;
    Stopwatch clock;
    if (!run_decode(threads)) return std::nullopt;
    const double seconds = clock.seconds();
    decode_forecast_.learn(threads, seconds);
    return seconds / n_decode_;
}

std::optional<double> TuneMeter::prefill(std::uint32_t threads, std::uint32_t batch) {
    if (!fits(prefill_forecast_(threads))) return std::nullopt;
    Stopwatch clock;
    if (!run_prefill(threads, batch)) return std::nullopt;
    const double seconds = clock.seconds();
    prefill_forecast_.learn(threads, seconds);
    return seconds / n_prefill_;
}

TuneCosts TuneMeter::costs() {
    return {[this](std::uint32_t threads) { return decode(threads); },
            [this](std::uint32_t threads, std::uint32_t batch) { return prefill(threads, batch); }};
}

Result<TuneChoice> tune(Executor& executor, const TuneCandidates& candidates, double seconds) {
    if (candidates.only_one()) return candidates.first();
    auto meter = TuneMeter::create(executor, candidates, seconds);
    if (!meter) return std::move(meter).error();
    return tune_search(candidates.judged_on((*meter)->n_prefill()), (*meter)->costs());
}

}  // namespace quern::engine
