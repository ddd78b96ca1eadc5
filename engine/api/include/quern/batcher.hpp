// SPDX-License-Identifier: Apache-2.0
// Many requests at once on one model: continuous batching. A part of quern.hpp, which includes it.
//
// Each step gives every running request its next token and reads prompts with what is left of the step. What a request
// is answered depends on nothing else in the batch: it is, bit for bit, what a Session of its own gives.
#ifndef QUERN_BATCHER_HPP
#define QUERN_BATCHER_HPP

#include "quern/quern.hpp"

namespace quern {

/// Goals that a Batcher keeps while it runs, by changing how many requests run at once, how many prompt tokens a step takes
/// beside decoding, and the model's threads. Each change is told to ModelOptions::on_log, with figures. Never changes a result.
struct AdaptOptions {
    bool on = false;
    double token_seconds = 0;          ///< most between two tokens of a request (90th percentile); 0: no goal
    double first_token_seconds = 0;    ///< most from submit() to a first token (mean); 0: no goal
    double tokens_per_second = 0;      ///< least of all requests together; goes before token_seconds; 0: no goal
    std::uint64_t memory = 0;          ///< most bytes of KV pages in use; 0: all there is
    std::uint32_t min_running = 1, min_prefill = 16;   ///< bounds; above, max_running and the model's n_batch hold
    int min_threads = 0, max_threads = 0;              ///< of decode; 0: as they are, so that they do not change
};

struct BatcherOptions {
    std::uint32_t n_ctx = 0;         ///< most tokens of a request, prompt and answer; 0: all that the KV cache holds
    std::uint32_t max_running = 32;  ///< requests that hold KV pages at a time (n_batch, if that is less)
    std::uint32_t max_waiting = 64;  ///< requests that may wait for their turn; one more is refused
    /// Most prompt tokens in a step that also decodes: less is smoother for those who read, more is faster in all.
    /// 0: a quarter of ModelOptions::n_batch.
    std::uint32_t n_prefill = 0;
    AdaptOptions adapt = {};
    std::function<double()> clock = {};  ///< seconds, never going back, for deadlines and metrics; empty: the system's
};

struct Request {
    std::vector<Token> prompt = {};  ///< or `text`
    std::string text = {};           ///< tokenized with add_special, special tokens in it being plain text
    /// As for Session::generate(), stop strings and callbacks included. Callbacks run on the thread that steps: they
    /// may submit and cancel, but neither step nor stop the batcher.
    GenerateOptions options = {};
    std::function<bool(Token)> on_token = {};  ///< each token of the answer; return false to stop
    std::int32_t priority = 0;                 ///< larger goes first
    std::string client = {};                   ///< requests of equal priority: clients get equal shares of tokens
    double deadline_seconds = 0;               ///< after submit(): Errc::deadline_exceeded if not over; 0: none
};

/// Of one request. Seconds; 0 for what was not reached.
struct RequestMetrics {
    double queue_seconds = 0;        ///< from submit() to its first step
    double prefill_seconds = 0;      ///< from there until its prompt was read
    double first_token_seconds = 0;  ///< from submit() to its first token
    double decode_seconds = 0;       ///< from its first token to the end
    double total_seconds = 0;        ///< from submit() to the end
    std::uint32_t n_prompt = 0, n_generated = 0;
    std::uint32_t n_reused = 0;                         ///< of the prompt: tokens that the KV cache had
    std::uint32_t n_preemptions = 0, n_recomputed = 0;  ///< times it lost its pages; tokens run again for that
    std::string to_json() const;                        ///< an object with these names
};

/// Of a batcher since it was made: its Metrics, and what it did with requests. tokens_per_second and
/// prompt_tokens_per_second are over busy_seconds.
struct BatchMetrics : Metrics {
    std::uint64_t n_submitted = 0, n_refused = 0;  ///< taken by submit(); refused because the queue was full
    std::uint64_t n_finished = 0, n_cancelled = 0, n_expired = 0, n_failed = 0;
    std::uint32_t n_running = 0, n_waiting = 0;                               ///< now
    std::uint32_t max_running = 0, n_prefill = 0;                             ///< now (AdaptOptions)
    std::uint64_t n_steps = 0, n_preemptions = 0, n_recomputed = 0;           ///< times; tokens
    double busy_seconds = 0;                                                  ///< in steps
    double mean_sequences = 0, mean_tokens = 0;                               ///< of a step
    double occupancy = 0;                                                     ///< mean_sequences over max_running
    std::uint32_t pages_total = 0, pages_used = 0, pages_peak = 0;  ///< of the KV cache, those of other sessions aside
    std::string to_json() const;                                    ///< an object with these names, and those of Metrics
};

/// A submitted request. May be copied, used by any thread, and outlive the batcher.
class Ticket {
public:
    std::uint64_t id() const;  ///< of submission, from 1
    bool done() const;
    void wait() const;
    bool wait_for(double seconds) const;  ///< done()
    /// Ends it soon with StopReason::cancelled.
    void cancel() noexcept;
    /// Waits until there are more than `have` tokens or the request is over, and gives the tokens from there on.
    std::vector<Token> next_tokens(std::size_t have) const;
    /// Waits. What Session::generate() would have returned, or Errc::deadline_exceeded, ...; seconds are from submit().
    const Result<GenerateResult>& result() const;
    RequestMetrics metrics() const;

    struct State;

private:
    explicit Ticket(std::shared_ptr<State> state) : state_(std::move(state)) {}
    std::shared_ptr<State> state_;
    friend class Batcher;
};

/// Runs requests of several threads together. Somebody must step: a thread of its own (start()) or the caller's.
class Batcher {
public:
    static Result<Batcher> create(const Model& model, const BatcherOptions& options = {});
    Batcher(Batcher&&) noexcept;
    Batcher& operator=(Batcher&&) noexcept;
    /// Requests that are not over end as cancelled.
    ~Batcher();

    /// From any thread. Refuses at once, saying why with numbers, what can never run (Errc::context_full: the prompt is
    /// longer than n_ctx), what is out of range, and what the queue has no place for (Errc::queue_full).
    Result<Ticket> submit(Request request);

    /// One step for all running requests. false: there is nothing to do. Other threads that step wait for their turn.
    /// A request that finds the KV cache full of other sessions' pages, while nothing else of this batcher runs,
    /// ends with Errc::context_full.
    bool step();
    void run_until_idle();
    /// Steps on a thread of its own, which sleeps while there is nothing to do.
    Status start();
    /// Ends that thread after its current step. Requests stay, and go on with the next step.
    void stop();

    BatchMetrics metrics() const;

    struct Impl;

private:
    explicit Batcher(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

/// Answers all of them, in their order; each fails by itself. metrics: filled in if given.
std::vector<Result<GenerateResult>> generate_batch(const Model& model, std::span<const Request> requests,
                                                   const BatcherOptions& options = {}, BatchMetrics* metrics = nullptr);

}  // namespace quern
#endif
