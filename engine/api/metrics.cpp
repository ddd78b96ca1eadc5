// SPDX-License-Identifier: Apache-2.0
// Metrics: what binds, as JSON, and as a table.
#include "quern/metrics.hpp"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "engine/api/model_impl.h"
#include "engine/core/memory.h"
#include "formats/text.h"

namespace quern {
namespace {

using Json = nlohmann::ordered_json;

KvTierMetrics tier_of(const engine::PagePool* pool) {
    if (!pool) return {};
    const std::uint64_t n = pool->n_pages();
    return {n, n - pool->n_free(), pool->n_kept(), pool->shape().page_tokens, pool->shape().page_bytes()};
}

double ratio(double a, double b) { return b > 0 ? a / b : 0; }

/// Three significant digits, with a unit: "3.12 ms", "28.9 GB/s".
std::string figure(double value, const char* unit) {
    static constexpr std::pair<double, const char*> kPrefixes[] = {{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}, {1, ""}, {1e-3, "m"}, {1e-6, "u"}};
    double scale = 1e-9;
    const char* prefix = "n";
    for (const auto& [s, p] : kPrefixes)
        if (value >= s * 0.9995) {
            scale = s, prefix = p;
            break;
        }
    char text[48];
    std::snprintf(text, sizeof text, "%.3g %s%s", value / scale, value == 0 ? "" : prefix, unit);
    return text;
}

std::string percent(double share) { return cat(static_cast<int>(100 * share + 0.5), "%"); }

Json json(const Distribution& d) {
    return {{"count", d.count}, {"total", d.total}, {"mean", d.mean}, {"min", d.min}, {"max", d.max}, {"p50", d.p50}, {"p90", d.p90}, {"p95", d.p95}, {"p99", d.p99}};
}

Json json(const RunMetrics& r) {
    return {{"n_runs", r.n_runs}, {"n_tokens", r.n_tokens}, {"seconds", r.seconds}, {"cpu_seconds", r.cpu_seconds}, {"device_seconds", r.device_seconds}, {"bytes", r.bytes}, {"operations", r.operations}};
}

Json json(const KvTierMetrics& t) {
    return {{"pages_total", t.pages_total}, {"pages_used", t.pages_used}, {"pages_kept", t.pages_kept}, {"page_tokens", t.page_tokens}, {"page_bytes", t.page_bytes}};
}

/// Whether memory or arithmetic holds up runs of one kind. Work of few operations a byte always waits for memory: no CPU reads a
/// byte in the time of kBalance operations. Else arithmetic binds if it alone, at the best speed seen in either kind of runs,
/// would take most of the time.
Bottleneck of_runs(const Metrics& m, bool decode, double share) {
    constexpr double kBalance = 8;
    const RunMetrics &runs = decode ? m.decode_runs : m.prefill_runs, &other = decode ? m.prefill_runs : m.decode_runs;
    if (runs.n_runs == 0 || runs.seconds <= 0) return {};
    const double bandwidth = std::max(ratio(runs.bytes, runs.seconds), ratio(other.bytes, other.seconds));
    const double speed = std::max(ratio(runs.operations, runs.seconds), ratio(other.operations, other.seconds));
    const double memory = ratio(runs.bytes, bandwidth) / runs.seconds, arithmetic = ratio(runs.operations, speed) / runs.seconds;
    const bool by_memory = runs.operations < kBalance * runs.bytes || arithmetic < 0.5;
    const auto n = static_cast<double>(runs.n_runs);
    std::string why = cat(decode ? "generating" : "reading prompts", " takes ", percent(share), " of the time: a step (tokens: ", figure(static_cast<double>(runs.n_tokens) / n, ""), ") takes ", figure(runs.seconds / n, "s"), ", reads ", figure(runs.bytes / n, "B"), " (", figure(ratio(runs.bytes, runs.seconds), "B/s"), ") and does ",
                          figure(runs.operations / n, "op"), " (", figure(ratio(runs.operations, runs.seconds), "op/s"), ")");
    if (other.n_runs > 0)
        why += cat("; at the best rates seen here, ", figure(bandwidth, "B/s"), " and ", figure(speed, "op/s"), ", its bytes alone would take ", percent(memory), " of that and its arithmetic ", percent(arithmetic));
    else
        why += cat("; so little arithmetic for a byte ", by_memory ? "waits for memory" : "is more than memory holds up");
    why += by_memory ? (decode ? ". More sequences in a step, a smaller quantization or a draft would help" : ". Longer steps (n_batch) would help") : ". Faster kernels, more threads or fewer tokens would help";
    return {by_memory ? BottleneckKind::memory_bandwidth : BottleneckKind::arithmetic, share, std::move(why)};
}

}  // namespace

void Model::Impl::fill(Metrics& out) const {
    out.tokenize = texts.get(engine::Stage::tokenize);
    const engine::RunTotals runs = executor->totals();
    out.decode_runs = runs.decode;
    out.prefill_runs = runs.prefill;
    out.n_threads = static_cast<int>(executor->threads());
    out.n_threads_batch = static_cast<int>(executor->threads_batch());
    out.thread_utilisation = ratio(runs.decode.cpu_seconds + runs.prefill.cpu_seconds, runs.decode.seconds * out.n_threads + runs.prefill.seconds * out.n_threads_batch);
    out.kv = tier_of(&executor->pages());
    out.kv_exact = tier_of(executor->exact_pages());
    out.model_bytes = memory_report().total;
    const engine::ProcessMemory process = engine::process_memory();
    out.memory = process.resident;
    out.memory_peak = process.peak_resident;
}

const char* to_string(BottleneckKind k) {
    switch (k) {
        case BottleneckKind::unknown: return "unknown";
        case BottleneckKind::memory_bandwidth: return "memory_bandwidth";
        case BottleneckKind::arithmetic: return "arithmetic";
        case BottleneckKind::sampling: return "sampling";
        case BottleneckKind::tokenization: return "tokenization";
        case BottleneckKind::queueing: return "queueing";
    }
    return "unknown";
}

Bottleneck Metrics::bottleneck() const {
    // Requests that wait their turn gain most by what lets more of them run at once, whatever a step does.
    if (const double share = ratio(queue.mean, request.mean); share > 0.5)
        return {BottleneckKind::queueing, share, cat("requests wait ", figure(queue.mean, "s"), " for their first step, ", percent(share), " of the ", figure(request.mean, "s"), " that they take in all. More at once (max_running, n_ctx) or fewer of them would help")};
    // A batcher's prompts are read in steps that they share with others: there the model's runs count.
    const double text = tokenize.total + detokenize.total, chosen = sampling.total;
    const double generating = queue.count > 0 ? decode_runs.seconds : decode.total, reading = queue.count > 0 ? prefill_runs.seconds : prefill.total;
    if (prefill.count + decode.count == 0) return {BottleneckKind::unknown, 0, "nothing has been generated yet"};
    const double all = text + chosen + generating + reading;
    const double most = std::max({text, chosen, generating, reading});
    if (most == text)
        return {BottleneckKind::tokenization, text / all, cat("turning text into tokens and back takes ", percent(text / all), " of the time: ", figure(tokenize.mean, "s"), " a prompt and ", figure(detokenize.mean, "s"), " a token")};
    if (most == chosen)
        return {BottleneckKind::sampling, chosen / all, cat("choosing tokens takes ", percent(chosen / all), " of the time, ", figure(sampling.mean, "s"), " each, the model ", figure(decode.mean, "s"), " a step. A top_k such as 40 makes it cheaper")};
    return of_runs(*this, most == generating || prefill_runs.n_runs == 0, most / all);   // a prompt of a few tokens runs as if they were generated
}

namespace {

Json json(const Metrics& m) {
    const Bottleneck b = m.bottleneck();
    return Json{{"tokenize", json(m.tokenize)}, {"queue", json(m.queue)}, {"prefill", json(m.prefill)}, {"first_token", json(m.first_token)}, {"token", json(m.token)},
                {"decode", json(m.decode)}, {"sampling", json(m.sampling)}, {"detokenize", json(m.detokenize)}, {"guess", json(m.guess)}, {"overhead", json(m.overhead)}, {"request", json(m.request)},
                {"n_prompt", m.n_prompt}, {"n_reused", m.n_reused}, {"n_generated", m.n_generated}, {"n_guessed", m.n_guessed}, {"n_accepted", m.n_accepted}, {"n_spikes", m.n_spikes},
                {"prompt_tokens_per_second", m.prompt_tokens_per_second}, {"tokens_per_second", m.tokens_per_second}, {"kv_hit_rate", m.kv_hit_rate}, {"acceptance", m.acceptance},
                {"decode_runs", json(m.decode_runs)}, {"prefill_runs", json(m.prefill_runs)}, {"n_threads", m.n_threads}, {"n_threads_batch", m.n_threads_batch}, {"thread_utilisation", m.thread_utilisation},
                {"kv", json(m.kv)}, {"kv_exact", json(m.kv_exact)}, {"model_bytes", m.model_bytes}, {"draft_bytes", m.draft_bytes}, {"memory", m.memory}, {"memory_peak", m.memory_peak},
                {"bottleneck", {{"kind", quern::to_string(b.kind)}, {"share", b.share}, {"why", b.why}}}};
}

}  // namespace

std::string Metrics::to_json() const { return json(*this).dump(); }

std::string RequestMetrics::to_json() const {
    return Json{{"queue_seconds", queue_seconds},
                {"prefill_seconds", prefill_seconds},
                {"first_token_seconds", first_token_seconds},
                {"decode_seconds", decode_seconds},
                {"total_seconds", total_seconds},
                {"n_prompt", n_prompt},
                {"n_generated", n_generated},
                {"n_reused", n_reused},
                {"n_preemptions", n_preemptions},
                {"n_recomputed", n_recomputed}}
        .dump();
}

std::string BatchMetrics::to_json() const {
    Json out{{"n_submitted", n_submitted},
             {"n_refused", n_refused},
             {"n_finished", n_finished},
             {"n_cancelled", n_cancelled},
             {"n_expired", n_expired},
             {"n_failed", n_failed},
             {"n_running", n_running},
             {"n_waiting", n_waiting},
             {"max_running", max_running},
             {"n_prefill", n_prefill},
             {"n_steps", n_steps},
             {"n_preemptions", n_preemptions},
             {"n_recomputed", n_recomputed},
             {"busy_seconds", busy_seconds},
             {"mean_sequences", mean_sequences},
             {"mean_tokens", mean_tokens},
             {"occupancy", occupancy},
             {"pages_total", pages_total},
             {"pages_used", pages_used},
             {"pages_peak", pages_peak}};
    out.update(json(static_cast<const Metrics&>(*this)));
    return out.dump();
}

std::string Metrics::to_string() const {
    std::string out = "stage             count       mean        min        p50        p90        p95        p99        max      total\n";
    const auto line = [&](const char* name, const Distribution& d) {
        if (d.count == 0) return;
        char head[48];
        std::snprintf(head, sizeof head, "%-12s %10llu", name, static_cast<unsigned long long>(d.count));
        out += head;
        for (const double v : {d.mean, d.min, d.p50, d.p90, d.p95, d.p99, d.max, d.total}) {
            const std::string text = figure(v, "s");
            out += std::string(text.size() < 11 ? 11 - text.size() : 1, ' ') + text;
        }
        out += '\n';
    };
    const std::pair<const char*, const Distribution*> stages[] = {{"tokenize", &tokenize}, {"queue", &queue}, {"prefill", &prefill}, {"first token", &first_token}, {"token", &token}, {"decode", &decode},
                                                                  {"sampling", &sampling}, {"detokenize", &detokenize}, {"guess", &guess}, {"overhead", &overhead}, {"request", &request}};
    for (const auto& [name, d] : stages) line(name, *d);
    out += cat("tokens       ", n_prompt, " of prompts, ", n_reused, " of them reused (", percent(kv_hit_rate), "); ", n_generated, " generated; ", figure(prompt_tokens_per_second, "read/s"), ", ", figure(tokens_per_second, "generated/s"), "\n");
    if (n_guessed > 0) out += cat("guesses      ", n_guessed, ", kept ", n_accepted, " (", percent(acceptance), ")\n");
    out += cat("spikes       ", n_spikes, " steps longer than four medians\n");
    const auto pages = [&](const char* name, const KvTierMetrics& t) {
        if (t.pages_total > 0) out += cat(name, t.pages_used, " of ", t.pages_total, " pages in use, ", t.pages_kept, " kept, of ", t.page_tokens, " tokens, ", engine::format_bytes(t.page_bytes), " each\n");
    };
    pages("KV cache     ", kv);
    pages("  exact      ", kv_exact);
    out += cat("threads      ", n_threads, ", for prompts ", n_threads_batch, "; busy ", percent(thread_utilisation), " of the time of runs\n");
    out += cat("memory       ", engine::format_bytes(memory), " now, ", engine::format_bytes(memory_peak), " at most; the model's ", engine::format_bytes(model_bytes), draft_bytes > 0 ? cat(", the draft's ", engine::format_bytes(draft_bytes)) : std::string(), "\n");
    const Bottleneck b = bottleneck();
    return out + cat("bottleneck   ", quern::to_string(b.kind), ": ", b.why, "\n");
}

}  // namespace quern
