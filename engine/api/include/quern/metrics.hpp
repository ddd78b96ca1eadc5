// SPDX-License-Identifier: Apache-2.0
// Where the time goes: what a Session and a Batcher have measured of themselves. A part of quern.hpp, which includes it.
#ifndef QUERN_METRICS_HPP
#define QUERN_METRICS_HPP

#include <cstdint>
#include <string>

namespace quern {

/// Of many amounts, kept in cells of 1/16 octave: percentiles are right to within 3.2%, the other figures exactly. 0 where
/// count is 0.
struct Distribution {
    std::uint64_t count = 0;
    double total = 0, mean = 0, min = 0, max = 0, p50 = 0, p90 = 0, p95 = 0, p99 = 0;
};

/// Pages of the KV cache in one number format.
struct KvTierMetrics {
    std::uint64_t pages_total = 0, pages_used = 0, pages_kept = 0;   ///< kept: for texts that begin alike, in nobody's use
    std::uint64_t page_tokens = 0, page_bytes = 0;
};

enum class BottleneckKind { unknown, memory_bandwidth, arithmetic, sampling, tokenization, queueing };
const char* to_string(BottleneckKind);

struct Bottleneck {
    BottleneckKind kind = BottleneckKind::unknown;
    double share = 0;   ///< of the time: what the binding stage takes
    std::string why;    ///< for a person, with figures
};

/// Runs of the model of one kind, by all who use it.
struct RunMetrics {
    std::uint64_t n_runs = 0, n_tokens = 0;
    double seconds = 0, cpu_seconds = 0;
    double bytes = 0, operations = 0;   ///< that the work needs, not what the kernels happen to do: docs/benchmarks.md
    double device_seconds = 0;          ///< of `seconds`, a GPU was at work, by its own clock
};

/// Times are in seconds. What is marked (model) covers all sessions and batchers of the Model since it was loaded, the rest
/// this Session or this Batcher.
struct Metrics {
    Distribution tokenize;      ///< (model) calls of tokenize() and tokenize_chat()
    Distribution queue;         ///< Batcher: from submit() to a request's first step
    Distribution prefill;       ///< reading a prompt
    Distribution first_token;   ///< from the start of a request (Batcher: submit()) to its first token
    Distribution token;         ///< between two tokens of an answer
    Distribution decode;        ///< steps that gave tokens: the run of the model
    Distribution sampling;      ///< from logits to a token
    Distribution detokenize;    ///< from a token to text, stop strings included, the caller's callbacks not
    Distribution guess;         ///< finding tokens to try: lookup, draft
    Distribution overhead;      ///< per token, what a step took beside the run, the guessing and the callbacks
    Distribution request;       ///< whole requests

    std::uint64_t n_prompt = 0, n_reused = 0;       ///< tokens of prompts, and of them those that the KV cache had
    std::uint64_t n_generated = 0;
    std::uint64_t n_guessed = 0, n_accepted = 0;
    std::uint64_t n_spikes = 0;                     ///< of decode: longer than four medians
    double prompt_tokens_per_second = 0, tokens_per_second = 0;   ///< read (reused ones aside), generated
    double kv_hit_rate = 0, acceptance = 0;         ///< n_reused over n_prompt; n_accepted over n_guessed

    RunMetrics decode_runs, prefill_runs;           ///< (model)
    int n_threads = 0, n_threads_batch = 0;         ///< (model) now
    double thread_utilisation = 0;                  ///< (model) CPU time of the process during runs over their time x threads
    KvTierMetrics kv, kv_exact;                     ///< (model) all positions or the quantized ones; two tiers: the exact ones
    std::uint64_t model_bytes = 0, draft_bytes = 0; ///< (model) MemoryReport::total; that of a session's draft
    std::uint64_t memory = 0, memory_peak = 0;      ///< resident bytes of the process; 0 where the system does not say

    /// What binds, and why.
    Bottleneck bottleneck() const;
    std::string to_json() const;     ///< an object with these names, and "bottleneck"
    std::string to_string() const;   ///< a table for a person
};

}  // namespace quern
#endif
