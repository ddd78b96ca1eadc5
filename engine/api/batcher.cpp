// SPDX-License-Identifier: Apache-2.0
// The loop around the scheduler: requests in, one batch a step, answers out.
#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <limits>
#include <mutex>
#include <system_error>
#include <thread>

#include "engine/api/answer.h"
#include "engine/api/ticket.h"
#include "engine/core/clock.h"
#include "engine/run/recorder.h"
#include "engine/run/scheduler.h"
#include "engine/tune/adapt.h"
#include "formats/text.h"

namespace quern {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
constexpr std::uint32_t kMaxRunning = 4096, kMaxWaiting = 1 << 16;

std::string seconds_text(double s) {
    char text[32];
    std::snprintf(text, sizeof text, "%.4g s", s);
    return text;
}

/// A request that is not over. Its entry is the scheduler's.
struct Work : engine::SchedulerEntry {
    explicit Work(Request r) : request(std::move(r)) {}

    Request request;
    std::vector<Token> prompt;
    std::shared_ptr<Ticket::State> state;
    std::optional<Answer> answer;                // points into request
    std::unique_ptr<engine::Sequence> sequence;  // from its first step on
    double submitted = 0, deadline = kNever, started = 0, read = 0, first_token = 0, last_token = 0;
    RequestMetrics metrics;
    bool prompt_read = false;
    std::optional<Error> failure;

    bool cancelled() const { return state->cancelled.load(std::memory_order_relaxed); }
};

Work& work_of(engine::SchedulerEntry& e) { return static_cast<Work&>(e); }

struct Part {  // of the batch in hand
    Work* work;
    std::uint32_t n;
    bool has_logits;
};

}  // namespace

struct Batcher::Impl {
    Impl(const Model& m, const BatcherOptions& o, std::uint32_t n_ctx, const engine::SchedulerLimits& limits)
        : model(m),
          impl(Internals::of(model)),
          executor(*impl.executor),
          options(o),
          n_ctx(n_ctx),
          max_running(limits.max_running),
          scheduler(limits, [this](engine::SchedulerEntry& e) { return reuse(work_of(e)); }) {
        const std::size_t n_vocab = executor.hparams().n_vocab;
        logits.resize(max_running * n_vocab);
        tokens.reserve(limits.n_batch);
        chunks.reserve(max_running);
        outputs.reserve(max_running);
        batch.reserve(max_running);
        settings = {limits.max_running, limits.max_prefill, executor.threads()};
        if (!o.adapt.on) return;
        engine::AdaptBounds bounds;
        bounds.least = {o.adapt.min_running, o.adapt.min_prefill, o.adapt.min_threads ? static_cast<std::uint32_t>(o.adapt.min_threads) : settings.n_threads};
        bounds.most = {limits.max_running, limits.n_batch, o.adapt.max_threads ? static_cast<std::uint32_t>(o.adapt.max_threads) : settings.n_threads};
        adapter.emplace(o.adapt, bounds, settings);
    }

    ~Impl();

    Result<Ticket> submit(Request request);
    Status check(const Request& r, std::span<const Token> prompt) const;
    Status check_queue();
    bool step();
    void take_inbox();
    void end_overdue(double now);
    void start_sequence(Work& w);
    std::uint32_t reuse(Work& w);
    std::uint32_t n_free_rings() const;
    Error no_room(const Work& w) const;
    void lose_pages(Work& w);
    void build_batch();
    Status run_batch();
    void after_run(const Part& part, std::span<const float> row, double now);
    bool next_token(Work& w, std::span<const float> row, double now);
    void end(Work& w, Result<GenerateResult> outcome);
    void end(Work& w);
    void publish_queue();
    void count_step(double seconds);
    void adapt(double step_seconds);
    void loop();
    void stop();
    double now() const { return options.clock ? options.clock() : watch.seconds(); }

    const Model model;
    Model::Impl& impl;
    engine::Executor& executor;
    const BatcherOptions options;
    const std::uint32_t n_ctx, max_running;
    engine::Stopwatch watch;

    std::mutex step_mutex;  // held for a whole step; what follows is its holder's
    engine::Scheduler scheduler;
    std::vector<std::unique_ptr<Work>> works, arrived;
    std::vector<Token> tokens;
    std::vector<engine::SeqChunk> chunks;
    std::vector<std::uint32_t> outputs;
    std::vector<Part> batch;
    std::vector<float> logits;  // [max_running][n_vocab]

    std::optional<engine::Adapter> adapter;
    engine::AdaptSettings settings;  // in force; for readers under `mutex`
    struct {                         // since the adapter was asked
        engine::Histogram seconds;   // of steps that gave tokens
        std::uint64_t n_sequences = 0, n_prefill = 0;
        double first_token_seconds = 0;
        std::uint32_t n_first_tokens = 0;
    } recent;

    mutable std::mutex mutex;  // short; never held while a callback runs
    std::condition_variable wake;
    std::vector<std::unique_ptr<Work>> inbox;
    std::uint64_t n_ids = 0;
    std::size_t n_queued = 0;  // waiting behind the inbox
    BatchMetrics totals;
    engine::Recorder recorder;
    std::uint64_t n_sequences = 0, n_tokens_run = 0;  // over all steps

    std::thread thread;
    std::atomic<bool> stopping{false};
};

// ---- Submitting: any thread ----

Status Batcher::Impl::check(const Request& r, std::span<const Token> prompt) const {
    if (prompt.empty()) return Error{Errc::invalid_argument, "a request needs a prompt of at least one token"};
    const std::uint32_t n_vocab = executor.hparams().n_vocab;
    for (std::size_t i = 0; i < prompt.size(); ++i)
        if (prompt[i] < 0 || static_cast<std::uint32_t>(prompt[i]) >= n_vocab)
            return Error{Errc::invalid_argument, cat("token ", prompt[i], " at index ", i,
                                                     " of the prompt is outside the vocabulary of ", n_vocab)};
    if (!(r.deadline_seconds >= 0))
        return Error{Errc::invalid_argument, "deadline_seconds is negative or not a number; 0 means none"};
    if (prompt.size() > n_ctx)
        return Error{Errc::context_full,
                     cat("a prompt of ", prompt.size(), " tokens can never run: a request may have ", n_ctx,
                         " (BatcherOptions::n_ctx) and the KV cache holds ", executor.n_ctx(),
                         "; shorten it or load with a larger context")};
    return {};
}

/// With the mutex held.
Status Batcher::Impl::check_queue() {
    const std::size_t n = n_queued + inbox.size();
    if (n < options.max_waiting) return {};
    ++totals.n_refused;
    return Error{Errc::queue_full,
                 cat("the queue is full: ", n, " requests wait, ", totals.n_running,
                     " run; try again later or raise BatcherOptions::max_waiting (", options.max_waiting, ")")};
}

Result<Ticket> Batcher::Impl::submit(Request request) {
    {
        std::lock_guard lock(mutex);  // before all the work; once more behind it
        if (auto s = check_queue(); !s) return std::move(s).error();
    }
    if (!request.prompt.empty() && !request.text.empty())
        return Error{Errc::invalid_argument, "a request has both prompt and text; give one of them"};
    auto w = std::make_unique<Work>(std::move(request));
    w->prompt = std::move(w->request.prompt);
    if (!w->request.text.empty()) {
        auto t = model.tokenize(w->request.text, {.add_special = true});
        if (!t) return std::move(t).error();
        w->prompt = std::move(*t);
    }
    if (auto s = check(w->request, w->prompt); !s) return std::move(s).error();
    auto answer = Answer::create(impl, w->request.options);
    if (!answer) return std::move(answer).error();
    w->answer.emplace(std::move(*answer));
    w->answer->record_to(&recorder);
    w->priority = w->request.priority;
    w->n_tokens = w->metrics.n_prompt = w->answer->result().n_prompt = static_cast<std::uint32_t>(w->prompt.size());
    w->state = std::make_shared<Ticket::State>();
    w->submitted = now();
    if (w->request.deadline_seconds > 0) w->deadline = w->submitted + w->request.deadline_seconds;
    auto state = w->state;
    {
        std::lock_guard lock(mutex);
        if (auto s = check_queue(); !s) return std::move(s).error();
        w->order = state->id = ++n_ids;
        ++totals.n_submitted;
        inbox.push_back(std::move(w));
    }
    wake.notify_one();
    return Ticket(std::move(state));
}

// ---- Stepping: one thread at a time ----

bool Batcher::Impl::step() {
    std::lock_guard stepping(step_mutex);
    engine::Stopwatch whole;
    take_inbox();
    const double begin = now();
    end_overdue(begin);
    publish_queue();
    if (scheduler.idle()) return false;
    const engine::Scheduler::Step& plan = scheduler.plan(executor.pages().n_free(), n_free_rings());
    for (engine::SchedulerEntry* e : plan.preempted) lose_pages(work_of(*e));
    if (plan.stuck) end(work_of(*plan.stuck), no_room(work_of(*plan.stuck)));
    build_batch();
    publish_queue();
    engine::Stopwatch run;
    const Status status = batch.empty() ? Status() : run_batch();
    const double run_seconds = run.seconds();
    scheduler.ran();
    const double end_of_run = now();
    const std::size_t n_vocab = executor.hparams().n_vocab;
    std::size_t row = 0;
    for (const Part& part : batch) {
        if (!status)
            end(*part.work, status.error());
        else
            after_run(part, std::span(logits).subspan(part.has_logits ? n_vocab * row++ : 0, n_vocab), end_of_run);
    }
    if (!outputs.empty()) {
        recorder.add(engine::Stage::decode, run_seconds);
        const auto n = static_cast<double>(outputs.size());
        recorder.add(engine::Stage::overhead, std::max(0.0, whole.seconds() - run_seconds) / n, outputs.size());
    }
    const double seconds = now() - begin;
    count_step(seconds);
    if (adapter && !outputs.empty()) adapt(seconds);
    return true;
}

void Batcher::Impl::take_inbox() {
    {
        std::lock_guard lock(mutex);
        arrived.swap(inbox);
        n_queued += arrived.size();
    }
    for (auto& w : arrived) {
        scheduler.add(*w, w->request.client);
        works.push_back(std::move(w));
    }
    arrived.clear();
}

void Batcher::Impl::end_overdue(double now) {
    for (std::size_t i = works.size(); i-- > 0;) {  // end() moves the last one to where this one was
        Work& w = *works[i];
        if (w.cancelled()) {
            w.answer->stop(StopReason::cancelled);
            end(w);
        } else if (now >= w.deadline) {
            end(w,
                Error{Errc::deadline_exceeded,
                      cat("the deadline of request ", w.state->id, ", ", seconds_text(w.request.deadline_seconds),
                          ", has passed: after ", seconds_text(now - w.submitted), " it has ", w.n_run, " of ",
                          w.prompt.size(), " prompt tokens read, and ", w.metrics.n_generated, " tokens generated")});
        }
    }
}

/// Exact tiers that sequences can still have.
std::uint32_t Batcher::Impl::n_free_rings() const {
    const std::uint32_t each = executor.exact_pages_each();
    return each ? executor.exact_pages()->n_promises() / each : engine::Scheduler::kNoLimit;
}

Error Batcher::Impl::no_room(const Work& w) const {
    if (n_free_rings() == 0)
        return {Errc::context_full,
                "the exact tier of the KV cache is held by sessions outside the batcher; end some or "
                "load with a larger kv_sessions"};
    const engine::PagePool& pool = executor.pages();
    const std::size_t page = pool.shape().page_tokens;
    return {Errc::context_full, cat("the KV cache has no room for ", w.n_tokens, " tokens: ", pool.n_free() * page,
                                    " of ", pool.n_pages() * page,
                                    " are free, the rest is held by sessions outside the batcher; "
                                    "end some or load with a larger context")};
}

/// What the cache has of w's text; the pages are w's from now on.
std::uint32_t Batcher::Impl::reuse(Work& w) {
    if (!w.sequence) start_sequence(w);
    const std::uint32_t before = w.sequence->n_run(), after = w.sequence->reuse();
    if (after == before) return after;
    // Below n_ran_once it had been run, and was counted as lost.
    const std::uint32_t back = std::min(after, w.n_ran_once) - std::min(before, w.n_ran_once),
                        found = after - before - back;
    w.metrics.n_recomputed -= back;
    w.metrics.n_reused = w.answer->result().n_reused += found;
    std::lock_guard lock(mutex);
    totals.n_recomputed -= back;
    return after;
}

void Batcher::Impl::start_sequence(Work& w) {
    const std::int64_t most = w.request.options.max_tokens;
    const auto n_prompt = static_cast<std::uint32_t>(w.prompt.size());
    const std::uint32_t n_answer =
        most < 0 || most > n_ctx - n_prompt ? n_ctx - n_prompt : static_cast<std::uint32_t>(most);
    w.sequence = std::make_unique<engine::Sequence>(executor, n_prompt + n_answer, /*own_logits=*/false);
    w.sequence->add(w.prompt);
    w.answer->read(w.prompt);
    w.answer->reserve(n_answer);
    w.started = now();
    w.metrics.queue_seconds = w.started - w.submitted;
    {
        std::lock_guard lock(w.state->mutex);
        w.state->tokens.reserve(n_answer);
    }
    recorder.add(engine::Stage::queue, w.metrics.queue_seconds);
}

void Batcher::Impl::lose_pages(Work& w) {
    const std::uint32_t lost = w.sequence->n_run();
    w.sequence->drop_cache();
    ++w.metrics.n_preemptions;
    w.metrics.n_recomputed += lost;
    std::lock_guard lock(mutex);
    ++totals.n_preemptions;
    totals.n_recomputed += lost;
}

void Batcher::Impl::build_batch() {
    tokens.clear();
    chunks.clear();
    outputs.clear();
    batch.clear();
    const engine::Scheduler::Step& plan = scheduler.planned();
    for (std::size_t i = 0; i < plan.slices.size();) {
        const auto [entry, wanted] = plan.slices[i];
        Work& w = work_of(*entry);
        // The pages were free when the step was planned; a session on another thread may have been faster.
        const std::uint32_t n = w.sequence->reserve_pages(w.n_tokens) ? w.sequence->make_ready(wanted) : 0;
        if (n == 0) {
            lose_pages(w);
            scheduler.preempt(w);  // erases the slice
            continue;
        }
        if (n < wanted) scheduler.shorten(i, n);
        const auto first = static_cast<std::uint32_t>(tokens.size());
        chunks.push_back(w.sequence->chunk(first, n));
        const auto part = w.sequence->tokens().subspan(w.n_run, n);
        tokens.insert(tokens.end(), part.begin(), part.end());
        batch.push_back({&w, n, w.n_run + n == w.n_tokens});
        if (batch.back().has_logits) outputs.push_back(first + n - 1);
        ++i;
    }
}

Status Batcher::Impl::run_batch() {
    engine::RunArgs args;
    args.tokens = tokens;
    args.chunks = chunks;
    args.outputs = outputs;
    args.logits = logits.data();
    args.logits_stride = executor.hparams().n_vocab;
    return executor.run(args);
}

void Batcher::Impl::after_run(const Part& part, std::span<const float> row, double now) {
    Work& w = *part.work;
    w.sequence->ran(part.n);
    if (!w.prompt_read) {
        const auto& on_prefill = w.request.options.on_prefill;
        const auto n_prompt = static_cast<std::uint32_t>(w.prompt.size());
        if (on_prefill && !on_prefill(w.n_run, n_prompt)) w.answer->stop(StopReason::cancelled);
        if (part.has_logits) {
            w.prompt_read = true;
            w.read = now;
            w.metrics.prefill_seconds = w.answer->result().prompt_seconds = now - w.started;
            recorder.add(engine::Stage::prefill, w.metrics.prefill_seconds);
            recorder.count({.n_prompt = n_prompt, .n_reused = w.metrics.n_reused});
        }
    }
    if (w.answer->over() || (part.has_logits && !next_token(w, row, now))) end(w);
}

/// false: the answer is complete.
bool Batcher::Impl::next_token(Work& w, std::span<const float> row, double now) {
    const std::uint32_t room = n_ctx - w.n_tokens;
    if (w.cancelled()) w.answer->stop(StopReason::cancelled);
    if (w.answer->at_limit(room)) return false;
    const auto token = w.answer->sample(row);
    if (w.metrics.n_generated == 0) {
        w.first_token = now;
        w.metrics.first_token_seconds = w.answer->result().first_token_seconds = now - w.submitted;
        recorder.add(engine::Stage::first_token, w.metrics.first_token_seconds);
        recent.first_token_seconds += w.metrics.first_token_seconds;
        ++recent.n_first_tokens;
    } else {
        recorder.add(engine::Stage::token, now - w.last_token);
    }
    w.last_token = now;
    if (!token) {
        w.failure = token.error();
        return false;
    }
    if (w.answer->over()) return false;
    w.sequence->add({&*token, 1});
    ++w.n_tokens;
    ++w.metrics.n_generated;
    {
        std::lock_guard lock(w.state->mutex);
        w.state->tokens.push_back(*token);
        w.state->metrics = w.metrics;
    }
    w.state->changed.notify_all();
    w.answer->take(*token);
    if ((w.request.on_token && !w.request.on_token(*token)) || w.cancelled()) w.answer->stop(StopReason::cancelled);
    return !w.answer->at_limit(room - 1);
}

void Batcher::Impl::end(Work& w) {
    if (w.failure)
        end(w, *std::move(w.failure));
    else
        end(w, w.answer->finish());
}

void Batcher::Impl::end(Work& w, Result<GenerateResult> outcome) {
    const double t = now();
    RequestMetrics& m = w.metrics;
    m.total_seconds = t - w.submitted;
    if (m.n_generated > 0) m.decode_seconds = t - w.first_token;
    if (outcome && w.prompt_read) outcome->generate_seconds = t - w.read;
    recorder.add(engine::Stage::request, m.total_seconds);
    scheduler.remove(w);
    w.sequence.reset();
    {
        std::lock_guard lock(mutex);
        if (outcome)
            ++(outcome->stop_reason == StopReason::cancelled ? totals.n_cancelled : totals.n_finished);
        else
            ++(outcome.error().code == Errc::deadline_exceeded ? totals.n_expired : totals.n_failed);
    }
    {
        std::lock_guard lock(w.state->mutex);
        w.state->metrics = m;
        w.state->outcome.emplace(std::move(outcome));
    }
    w.state->changed.notify_all();
    const auto at = std::find_if(works.begin(), works.end(), [&](const auto& p) { return p.get() == &w; });
    at->swap(works.back());
    works.pop_back();
}

/// What submit() and metrics() want to know, before a step that may take long.
void Batcher::Impl::publish_queue() {
    std::lock_guard lock(mutex);
    n_queued = scheduler.waiting().size();
    totals.n_running = static_cast<std::uint32_t>(scheduler.running().size());
    totals.pages_used = 0;
    for (const engine::SchedulerEntry* e : scheduler.running()) totals.pages_used += e->n_pages;
    totals.pages_peak = std::max(totals.pages_peak, totals.pages_used);
}

void Batcher::Impl::count_step(double seconds) {
    publish_queue();
    std::lock_guard lock(mutex);
    totals.busy_seconds += seconds;
    if (batch.empty()) return;
    ++totals.n_steps;
    n_sequences += batch.size();
    n_tokens_run += tokens.size();
}

/// Asks for other settings after each kAdaptSteps steps that gave tokens.
void Batcher::Impl::adapt(double step_seconds) {
    constexpr std::uint64_t kAdaptSteps = 32;
    recent.seconds.add(step_seconds);
    recent.n_sequences += outputs.size();
    recent.n_prefill += tokens.size() - outputs.size();
    const Distribution steps = recent.seconds.get();
    if (steps.count < kAdaptSteps) return;
    engine::AdaptObservation seen;
    seen.token_seconds = steps.p90;
    seen.first_token_seconds = recent.n_first_tokens ? recent.first_token_seconds / recent.n_first_tokens : 0;
    seen.tokens_per_second = steps.total > 0 ? static_cast<double>(recent.n_sequences) / steps.total : 0;
    seen.sequences = static_cast<double>(recent.n_sequences) / static_cast<double>(steps.count);
    seen.prefill = static_cast<double>(recent.n_prefill) / static_cast<double>(steps.count);
    recent = {};
    {
        std::lock_guard lock(mutex);
        seen.memory = totals.pages_used * executor.pages().shape().page_bytes();
        seen.waiting = static_cast<std::uint32_t>(n_queued + inbox.size());
    }
    const engine::Adapter::Decision& decision = adapter->update(seen);
    if (decision.why.empty()) return;
    if (decision.settings.n_threads != settings.n_threads) executor.set_threads(decision.settings.n_threads, executor.threads_batch());
    scheduler.set_limits(decision.settings.n_running, decision.settings.n_prefill);
    {
        std::lock_guard lock(mutex);
        settings = decision.settings;
    }
    if (impl.on_log) impl.on_log(LogLevel::info, decision.why);
}

BatchMetrics Batcher::metrics() const {
    const Impl& i = *impl_;
    std::unique_lock lock(i.mutex);
    BatchMetrics m = i.totals;
    const auto n_sequences = static_cast<double>(i.n_sequences), n_tokens = static_cast<double>(i.n_tokens_run);
    m.max_running = i.settings.n_running;
    m.n_prefill = i.settings.n_prefill;
    m.n_waiting = static_cast<std::uint32_t>(i.n_queued + i.inbox.size());
    lock.unlock();  // the rest asks the system and sums up: nobody need wait for that
    i.recorder.fill(m);
    i.impl.fill(m);
    m.pages_total = i.executor.pages().n_pages();
    if (m.busy_seconds > 0) {
        m.prompt_tokens_per_second = static_cast<double>(m.n_prompt - m.n_reused) / m.busy_seconds;
        m.tokens_per_second = static_cast<double>(m.n_generated) / m.busy_seconds;
    }
    if (m.n_steps > 0) {
        m.mean_sequences = n_sequences / static_cast<double>(m.n_steps);
        m.mean_tokens = n_tokens / static_cast<double>(m.n_steps);
        m.occupancy = m.mean_sequences / i.max_running;
    }
    return m;
}

// ---- The batcher's own thread, and the handle ----

void Batcher::Impl::loop() {
    for (;;) {
        while (!stopping.load() && step()) {
        }
        std::unique_lock lock(mutex);
        wake.wait(lock, [&] { return stopping.load() || !inbox.empty(); });
        if (stopping.load()) return;
    }
}

void Batcher::Impl::stop() {
    {
        std::lock_guard lock(mutex);  // not between the loop's look at `stopping` and its sleep
        stopping.store(true);
    }
    wake.notify_all();
    if (thread.joinable()) thread.join();
}

Batcher::Impl::~Impl() {
    stop();
    take_inbox();
    while (!works.empty()) {
        works.back()->answer->stop(StopReason::cancelled);
        end(*works.back());
    }
}

namespace {

Status check_adapt(const AdaptOptions& o, const engine::SchedulerLimits& limits, const engine::Executor& e) {
    const auto bad = [](std::string_view what) { return Error{Errc::invalid_argument, cat("AdaptOptions::", what)}; };
    for (const double goal : {o.token_seconds, o.first_token_seconds, o.tokens_per_second})
        if (!(goal >= 0) || !std::isfinite(goal)) return bad("token_seconds, first_token_seconds and tokens_per_second are finite and not negative; 0 is no goal");
    if (o.min_running < 1 || o.min_running > limits.max_running) return bad(cat("min_running is ", o.min_running, "; it is 1 to max_running, ", limits.max_running));
    if (o.min_prefill < 1 || o.min_prefill > limits.n_batch) return bad(cat("min_prefill is ", o.min_prefill, "; it is 1 to the model's n_batch, ", limits.n_batch));
    const auto now = static_cast<int>(e.threads()), least = o.min_threads ? o.min_threads : now, most = o.max_threads ? o.max_threads : now;
    if (least < 1 || least > most || most > static_cast<int>(e.max_threads())) return bad(cat("min_threads and max_threads make ", least, " to ", most, "; the model was loaded with 1 to ", e.max_threads()));
    return {};
}

}  // namespace

Batcher::Batcher(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Batcher::Batcher(Batcher&&) noexcept = default;
Batcher& Batcher::operator=(Batcher&&) noexcept = default;
Batcher::~Batcher() = default;

Result<Batcher> Batcher::create(const Model& model, const BatcherOptions& o) {
    const engine::Executor& e = *Internals::of(model).executor;
    if (o.n_ctx > e.n_ctx())
        return Error{Errc::invalid_argument, cat("BatcherOptions::n_ctx is ", o.n_ctx, ", but the KV cache holds ",
                                                 e.n_ctx(), " tokens; load with a larger n_ctx")};
    if (o.max_running == 0 || o.max_waiting == 0 || o.max_running > kMaxRunning || o.max_waiting > kMaxWaiting)
        return Error{Errc::invalid_argument, cat("max_running is ", o.max_running, " and max_waiting ", o.max_waiting,
                                                 "; they are 1 to ", kMaxRunning, " and 1 to ", kMaxWaiting)};
    engine::SchedulerLimits limits;
    limits.n_batch = e.n_batch();  // may change later; what fits now will fit then
    limits.max_running = std::min(o.max_running, limits.n_batch);
    limits.max_prefill = o.n_prefill ? o.n_prefill : std::max(1u, limits.n_batch / 4);
    limits.page_tokens = e.pages().shape().page_tokens;
    limits.tiers = e.tiers();
    if (o.adapt.on)
        if (auto s = check_adapt(o.adapt, limits, e); !s) return std::move(s).error();
    return Batcher(std::make_unique<Impl>(model, o, o.n_ctx ? o.n_ctx : e.n_ctx(), limits));
}

Result<Ticket> Batcher::submit(Request request) { return impl_->submit(std::move(request)); }
bool Batcher::step() { return impl_->step(); }
void Batcher::run_until_idle() {
    while (impl_->step()) {
    }
}
void Batcher::stop() { impl_->stop(); }

Status Batcher::start() {
    if (impl_->thread.joinable()) return Error{Errc::invalid_argument, "the batcher has been started already"};
    impl_->stopping.store(false);
    try {
        impl_->thread = std::thread([impl = impl_.get()] { impl->loop(); });
    } catch (const std::system_error& e) {
        return Error{Errc::io, std::string("the system refused a thread for the batcher: ") + e.what()};
    }
    return {};
}

}  // namespace quern
