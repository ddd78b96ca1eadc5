// SPDX-License-Identifier: Apache-2.0
// quern::Batcher: the answers of single sessions whatever else is in the batch; refusals, cancellation, deadlines,
// preemption, metrics, threads.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <thread>

#include "engine/api/model_impl.h"
#include "quern/quern.hpp"
#include "tests/engine/counting_new.h"
#include "tests/support/models.h"

namespace quern {
namespace {

constexpr std::uint32_t kContext = 192;  // of a request, here and in the single session

Model load(const char* name, std::uint32_t n_ctx, std::uint32_t n_batch = 512) {
    auto m = Model::load((test::tiny_dir() / name).string(), {.n_threads = 2, .n_ctx = n_ctx, .n_batch = n_batch});
    EXPECT_TRUE(m.ok()) << (m ? "" : m.error().message);
    return *std::move(m);
}
Model load(std::uint32_t n_ctx = 1024, std::uint32_t n_batch = 512) { return load("llama-q4_0.gguf", n_ctx, n_batch); }

Batcher make(const Model& m, BatcherOptions o = {}) {
    if (o.n_ctx == 0) o.n_ctx = kContext;
    auto b = Batcher::create(m, o);
    EXPECT_TRUE(b.ok()) << (b ? "" : b.error().message);
    return *std::move(b);
}

Ticket submit(Batcher& b, Request r) {
    auto t = b.submit(std::move(r));
    EXPECT_TRUE(t.ok()) << (t ? "" : t.error().message);
    return *std::move(t);
}

/// A plain request: greedy, `max` tokens whatever they are.
Request plain(std::vector<Token> prompt, std::int64_t max) {
    Request r;
    r.prompt = std::move(prompt);
    r.options.sampler.temperature = 0;
    r.options.max_tokens = max;
    r.options.ignore_end_of_generation = true;
    return r;
}

std::vector<Token> prompt_of(std::size_t n, Token first = 3) {
    std::vector<Token> out(n);
    std::iota(out.begin(), out.end(), first);
    return out;
}

Request random_request(std::mt19937& random, std::uint32_t n_vocab) {
    const auto pick = [&](std::uint32_t a, std::uint32_t b) {
        return a + static_cast<std::uint32_t>(random() % (b - a + 1));
    };
    Request r;
    r.prompt.resize(pick(0, 5) ? pick(1, 60) : pick(1, kContext));
    for (Token& t : r.prompt) t = static_cast<Token>(random() % n_vocab);
    GenerateOptions& o = r.options;
    o.max_tokens = pick(0, 4) ? pick(0, 40) : -1;
    o.ignore_end_of_generation = pick(0, 1);
    o.sampler.temperature = pick(0, 3) ? 0.9f : 0;
    o.sampler.seed = random();
    if (pick(0, 2) == 0) o.sampler.repeat_penalty = 1.2f;
    if (pick(0, 3) == 0) o.sampler.typical_p = 0.8f;
    if (pick(0, 2) == 0) o.stop = {"e", "zq"};
    r.priority = static_cast<std::int32_t>(pick(0, 2));
    r.client = std::string(1, static_cast<char>('a' + pick(0, 2)));
    return r;
}

GenerateResult alone(const Model& m, const Request& r) {
    auto s = m.new_session(kContext);
    auto out = s->generate(r.prompt, r.options);
    EXPECT_TRUE(out.ok()) << (out ? "" : out.error().message);
    return *std::move(out);
}

void expect_same(const Result<GenerateResult>& got, const GenerateResult& want, std::size_t i) {
    ASSERT_TRUE(got.ok()) << i << ": " << got.error().message;
    EXPECT_EQ(got->tokens, want.tokens) << i;
    EXPECT_EQ(got->text, want.text) << i;
    EXPECT_STREQ(to_string(got->stop_reason), to_string(want.stop_reason)) << i;
    EXPECT_EQ(got->stop_string, want.stop_string) << i;
    EXPECT_EQ(got->n_prompt, want.n_prompt) << i;
    EXPECT_EQ(got->n_generated, want.n_generated) << i;
}

// Wide, narrow and odd steps; a cache for all, and one of 14 pages that forces preemption.
TEST(Batcher, GivesWhatSingleSessionsGive) {
    std::mt19937 random(5);
    for (const char* name : {"llama-q4_0.gguf", "llama-q5_k.gguf", "qwen2-q4_0.gguf"}) {
        if (QUERN_TEST_SLOW && name != std::string_view("llama-q4_0.gguf")) continue;
        const Model reference = load(name, 512);
        std::vector<Request> requests;
        std::vector<GenerateResult> want;
        for (int i = 0; i < 24; ++i) {
            requests.push_back(random_request(random, reference.info().n_vocab));
            if (i == 0) requests[0].options.max_tokens = 0;
            if (i == 1) requests[1].prompt.resize(kContext, 9);  // no room for a token
            want.push_back(alone(reference, requests.back()));
        }
        struct Case {
            std::uint32_t n_ctx, n_batch, max_running, n_prefill;
            bool preempts;
        };
        for (const Case& c :
             {Case{24 * kContext, 512, 32, 0, false}, Case{5 * kContext, 37, 5, 3, false}, Case{224, 64, 16, 64, true}}) {
            const Model m = load(name, c.n_ctx, c.n_batch);
            Batcher b = make(m, {.max_running = c.max_running, .max_waiting = 100, .n_prefill = c.n_prefill});
            std::vector<std::optional<Ticket>> tickets(requests.size());
            // Requests that must get into each other's way wait for each other.
            if (!c.preempts) { ASSERT_TRUE(b.start().ok()); }
            std::vector<std::thread> threads;
            for (std::size_t t = 0; t < 3; ++t)
                threads.emplace_back([&, t] {
                    for (std::size_t i = t; i < requests.size(); i += 3) tickets[i] = submit(b, requests[i]);
                });
            for (std::thread& t : threads) t.join();
            if (c.preempts) { ASSERT_TRUE(b.start().ok()); }
            for (const auto& t : tickets) t->wait();
            for (std::size_t i = 0; i < requests.size(); ++i) expect_same(tickets[i]->result(), want[i], i);
            const BatchMetrics metrics = b.metrics();
            EXPECT_EQ(metrics.n_finished, requests.size());
            EXPECT_EQ(metrics.n_preemptions > 0, c.preempts) << metrics.to_json();
            EXPECT_LE(metrics.pages_peak, metrics.pages_total);
            EXPECT_EQ(m.memory_report().kv_used, 0u) << "a page leaked, or is given back after the answer is out";
        }
    }
}

// A beginning that others have read is not read again: while it is being read, afterwards, and after preemption.
TEST(Batcher, RequestsShareABeginning) {
    const Model m = load(1024, 32);
    auto apart = Model::load((test::tiny_dir() / "llama-q4_0.gguf").string(), {.n_threads = 2, .prefix_cache = false});
    ASSERT_TRUE(apart.ok());
    std::vector<Request> requests;
    std::vector<GenerateResult> want;
    for (Token i = 0; i < 4; ++i) {
        std::vector<Token> prompt = prompt_of(100);
        prompt.insert(prompt.end(), static_cast<std::size_t>(5 + i), 7 + i);
        requests.push_back(plain(std::move(prompt), 20));
        want.push_back(alone(*apart, requests.back()));
    }
    Batcher b = make(m);
    const auto run = [&](std::size_t n) {
        std::vector<Ticket> tickets;
        for (std::size_t i = 0; i < n; ++i) tickets.push_back(submit(b, requests[i]));
        b.run_until_idle();
        for (std::size_t i = 0; i < n; ++i) expect_same(tickets[i].result(), want[i], i);
        return tickets;
    };
    // Steps of 32 tokens: the second begins when the first has read its prompt but for the last step's part.
    auto tickets = run(2);
    EXPECT_EQ(tickets[0].metrics().n_reused, 0u);
    EXPECT_EQ(tickets[1].metrics().n_reused, 96u);
    tickets = run(4);
    for (std::size_t i = 0; i < 4; ++i) {
        EXPECT_EQ(tickets[i].result()->n_reused, i < 2 ? 104u + i : 100u)
            << i << ": all but the last token, or what is alike";
        EXPECT_EQ(tickets[i].metrics().n_reused, tickets[i].result()->n_reused);
    }
    EXPECT_EQ(b.metrics().n_reused, 96u + 104 + 105 + 2 * 100);
    EXPECT_EQ(b.metrics().kv_hit_rate,
              static_cast<double>(b.metrics().n_reused) / static_cast<double>(b.metrics().n_prompt));
    EXPECT_EQ(m.memory_report().kv_used, 0u) << "a page leaked";
    EXPECT_GT(m.memory_report().kv_kept, 0u);
}

TEST(Batcher, APreemptedRequestGetsBackWhatIsKept) {
    const Model m = load(256, 64);
    Batcher b = make(m, {.max_running = 4});
    const Request low = plain(prompt_of(100), 60);
    const GenerateResult want = alone(m, low);
    const Ticket first = submit(b, low);
    for (int i = 0; i < 10; ++i) b.step();
    Request high = plain(prompt_of(130, 50), 4);
    high.priority = 1;
    const Ticket second = submit(b, high);
    b.run_until_idle();
    ASSERT_TRUE(second.result().ok());
    expect_same(first.result(), want, 0);
    EXPECT_EQ(first.metrics().n_preemptions, 1u);
    EXPECT_LT(first.metrics().n_recomputed, 60u) << "of more than 100";
    EXPECT_EQ(b.metrics().n_recomputed, first.metrics().n_recomputed);
    EXPECT_EQ(m.memory_report().kv_used, 0u);
}

// Rings, long chunks of which a batch takes few, and too few exact tiers for all.
TEST(Batcher, GivesTheSameWithTwoTiers) {
    for (const KvType type : {KvType::two_tier, KvType::q8, KvType::q4})
        for (const std::uint32_t n_sessions : {12u, 3u}) {
            const ModelOptions options{.n_threads = 2,
                                       .n_ctx = n_sessions > 3 ? 2048u : 320u,
                                       .kv_type = type,
                                       .kv_tail = type == KvType::two_tier ? 40 : 0,
                                       .kv_sessions = n_sessions};
            auto m = Model::load((test::tiny_dir() / "llama-q4_0.gguf").string(), options);
            ASSERT_TRUE(m.ok()) << m.error().message;
            std::mt19937 random(11);
            std::vector<Request> requests;
            std::vector<GenerateResult> want;
            for (std::size_t i = 0; i < 12; ++i) {
                requests.push_back(random_request(random, m->info().n_vocab));
                if (i < 8) requests.back().prompt.resize(90 + i, static_cast<Token>(i));  // too long for a ring
                want.push_back(alone(*m, requests.back()));
            }
            const std::uint64_t used = m->memory_report().kv_used;
            Batcher b = make(*m);
            std::vector<Ticket> tickets;
            for (const Request& r : requests) tickets.push_back(submit(b, r));
            b.run_until_idle();
            for (std::size_t i = 0; i < requests.size(); ++i) expect_same(tickets[i].result(), want[i], i);
            EXPECT_EQ(m->memory_report().kv_used, used);
            EXPECT_LE(b.metrics().mean_sequences, n_sessions);
        }
}

// The same with an exact tail: also by requests that share exact pages while all of them run, in steps that go beside these.
TEST(Batcher, RequestsShareABeginningInTwoTiers) {
    for (const std::uint32_t n_batch : {32u, 256u}) {
        ModelOptions options{.n_threads = 2, .n_ctx = 2048};
        options.n_batch = n_batch;
        options.kv_type = KvType::two_tier;
        options.kv_tail = 40;
        options.kv_sessions = 4;
        const std::string path = (test::tiny_dir() / "llama-q4_0.gguf").string();
        auto m = Model::load(path, options);
        options.prefix_cache = false;
        auto apart = Model::load(path, options);
        ASSERT_TRUE(m.ok() && apart.ok());
        std::vector<Request> requests;
        std::vector<GenerateResult> want;
        for (Token i = 0; i < 5; ++i) {
            std::vector<Token> prompt = prompt_of(80);
            prompt.insert(prompt.end(), static_cast<std::size_t>(5 + 12 * i), 7 + i);
            requests.push_back(plain(std::move(prompt), 50));
            want.push_back(alone(*apart, requests.back()));
        }
        Batcher b = make(*m);
        const auto run = [&](std::size_t first, std::size_t n) {
            std::vector<Ticket> tickets;
            for (std::size_t i = first; i < first + n; ++i) tickets.push_back(submit(b, requests[i]));
            b.run_until_idle();
            for (std::size_t i = 0; i < n; ++i) expect_same(tickets[i].result(), want[first + i], first + i);
            return tickets;
        };
        EXPECT_EQ(run(0, 1)[0].metrics().n_reused, 0u);
        EXPECT_EQ(run(1, 1)[0].metrics().n_reused, 80u) << "an answer of 50 tokens behind the prompt moved its tail on";
        for (const Ticket& t : run(1, 4)) EXPECT_GE(t.metrics().n_reused, 80u);
        EXPECT_EQ(b.metrics().n_preemptions, 0u);
        EXPECT_EQ(m->memory_report().kv_used, 0u) << "a page leaked";
        EXPECT_EQ(Internals::of(*m).executor->exact_pages()->n_promises(), 4 * Internals::of(*m).executor->exact_pages_each());
    }
}

TEST(Batcher, GenerateBatchAnswersInOrder) {
    const Model m = load();
    std::vector<Request> requests{plain(prompt_of(5), 4), plain({}, 4), plain(prompt_of(9), 6)};
    requests[0].text = "both";
    requests.push_back(plain({}, 3));
    requests.back().text = "Some text";
    BatchMetrics metrics;
    const auto out = generate_batch(m, requests, {.n_ctx = kContext}, &metrics);
    ASSERT_EQ(out.size(), 4u);
    EXPECT_NE(out[0].error().message.find("both prompt and text"), std::string::npos);
    EXPECT_NE(out[1].error().message.find("at least one token"), std::string::npos);
    expect_same(out[2], alone(m, requests[2]), 2);
    requests[3].prompt = *m.tokenize("Some text", {.add_special = true});
    expect_same(out[3], alone(m, requests[3]), 3);
    EXPECT_EQ(metrics.n_finished, 2u);
    EXPECT_EQ(generate_batch(m, requests, {.n_ctx = 4096})[2].error().code, Errc::invalid_argument);
}

TEST(Batcher, CallbacksSeeWhatTheResultHolds) {
    const Model m = load(1024, 16);
    Batcher b = make(m);
    std::string text;
    std::vector<Token> seen;
    std::vector<std::uint32_t> read;
    Request r = plain(prompt_of(40), 12);
    r.options.on_text = [&](std::string_view t) {
        text += t;
        return true;
    };
    r.options.on_prefill = [&](std::uint32_t done, std::uint32_t all) {
        read.push_back(done);
        return all == 40;
    };
    r.on_token = [&](Token t) {
        seen.push_back(t);
        return true;
    };
    const Ticket t = submit(b, r);
    b.run_until_idle();
    ASSERT_TRUE(t.result().ok());
    EXPECT_EQ(t.result()->text, text);
    EXPECT_EQ(t.result()->tokens, seen);
    EXPECT_EQ(read, (std::vector<std::uint32_t>{16, 32, 40}));
    EXPECT_EQ(t.next_tokens(10), (std::vector<Token>{seen[10], seen[11]}));

    for (int which = 0; which < 3; ++which) {
        Request stops = plain(prompt_of(40), 12);
        if (which == 0) stops.on_token = [n = 0](Token) mutable { return ++n < 5; };
        if (which == 1) stops.options.on_text = [](std::string_view) { return false; };
        if (which == 2) stops.options.on_prefill = [](std::uint32_t done, std::uint32_t) { return done < 32; };
        const Ticket stopped = submit(b, stops);
        b.run_until_idle();
        ASSERT_TRUE(stopped.result().ok());
        EXPECT_EQ(stopped.result()->stop_reason, StopReason::cancelled) << which;
        const std::size_t n = stopped.result()->tokens.size();
        EXPECT_TRUE(which == 0 ? n == 5 : which == 1 ? n < 12 : n == 0) << which << ": " << n;
        EXPECT_TRUE(
            std::equal(seen.begin(), seen.begin() + static_cast<std::ptrdiff_t>(n), stopped.result()->tokens.begin()));
    }
    EXPECT_EQ(m.memory_report().kv_used, 0u);
}

TEST(Batcher, CallbacksMaySubmitAndCancel) {
    const Model m = load();
    Batcher b = make(m);
    std::optional<Ticket> second;
    Ticket first = submit(b, plain(prompt_of(4), 50));
    Request r = plain(prompt_of(6), 3);
    r.on_token = [&](Token) {
        if (!second) second = submit(b, plain(prompt_of(6), 3));
        first.cancel();
        return true;
    };
    const Ticket outer = submit(b, r);
    b.run_until_idle();
    ASSERT_TRUE(second && second->done());
    EXPECT_EQ(second->result()->tokens, outer.result()->tokens);
    EXPECT_EQ(first.result()->stop_reason, StopReason::cancelled);
}

TEST(Batcher, CancelsWaitingAndRunning) {
    const Model m = load();
    const GenerateResult whole = alone(m, plain(prompt_of(30), 60));
    Batcher b = make(m, {.max_running = 1});
    Ticket running = submit(b, plain(prompt_of(30), 60));
    Ticket waiting = submit(b, plain(prompt_of(30), 60));
    for (int i = 0; i < 8; ++i) EXPECT_TRUE(b.step());
    EXPECT_EQ(b.metrics().n_running, 1u);
    EXPECT_EQ(b.metrics().n_waiting, 1u);
    waiting.cancel();
    running.cancel();
    b.run_until_idle();
    ASSERT_TRUE(running.result().ok() && waiting.result().ok());
    EXPECT_EQ(running.result()->stop_reason, StopReason::cancelled);
    EXPECT_EQ(running.result()->tokens, std::vector<Token>(whole.tokens.begin(), whole.tokens.begin() + 8));
    EXPECT_EQ(waiting.result()->stop_reason, StopReason::cancelled);
    EXPECT_TRUE(waiting.result()->tokens.empty());
    EXPECT_EQ(b.metrics().n_cancelled, 2u);
    EXPECT_EQ(m.memory_report().kv_used, 0u);
    waiting.cancel();  // too late, and harmless
    EXPECT_FALSE(b.step());
}

TEST(Batcher, CancelledFromOtherThreadsAtAnyTime) {
    const Model m = load(256);
    Batcher b = make(m, {.max_running = 8});
    std::vector<std::vector<Token>> want;
    std::vector<Ticket> tickets;
    for (Token i = 0; i < 12; ++i) want.push_back(alone(m, plain(prompt_of(20, 10 + i), 100)).tokens);
    for (Token i = 0; i < 12; ++i) tickets.push_back(submit(b, plain(prompt_of(20, 10 + i), 100)));
    ASSERT_TRUE(b.start().ok());
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < 3; ++t)
        threads.emplace_back([&, t] {
            for (std::size_t i = t; i < tickets.size(); i += 3) {
                (void)tickets[i].next_tokens(i);  // as soon as it has more than i
                if (i % 2) tickets[i].cancel();
            }
        });
    for (std::thread& t : threads) t.join();
    for (std::size_t i = 0; i < tickets.size(); ++i) {
        ASSERT_TRUE(tickets[i].result().ok());
        const std::vector<Token>&whole = want[i], &got = tickets[i].result()->tokens;
        ASSERT_LE(got.size(), whole.size());
        EXPECT_GE(got.size(), i % 2 ? i + 1 : whole.size());
        EXPECT_TRUE(std::equal(got.begin(), got.end(), whole.begin())) << i;
    }
    b.stop();
    EXPECT_EQ(m.memory_report().kv_used, 0u);
}

TEST(Batcher, DeadlinesByAClockOfTheCallers) {
    const Model m = load();
    double time = 100;
    Batcher b = make(m, {.max_running = 1, .clock = [&] { return time; }});
    Request r = plain(prompt_of(5), 50);
    r.deadline_seconds = 2;
    const Ticket running = submit(b, r), waiting = submit(b, r);
    r.deadline_seconds = 4;
    r.options.max_tokens = 3;
    const Ticket later = submit(b, r);
    b.step();
    time = 101.5;
    b.step();
    EXPECT_FALSE(running.done() || waiting.done());
    time = 102;
    b.step();
    ASSERT_TRUE(running.done() && waiting.done());
    for (const Ticket* t : {&running, &waiting}) {
        ASSERT_FALSE(t->result().ok());
        EXPECT_EQ(t->result().error().code, Errc::deadline_exceeded);
    }
    EXPECT_NE(running.result().error().message.find(
                  "the deadline of request 1, 2 s, has passed: after 2 s it has 6 of 5 prompt"),
              std::string::npos)
        << running.result().error().message;
    EXPECT_NE(waiting.result().error().message.find("0 of 5 prompt tokens read, and 0 tokens"), std::string::npos);
    EXPECT_EQ(running.next_tokens(0).size(), 2u) << "what there was can still be had";
    b.run_until_idle();
    ASSERT_TRUE(later.result().ok()) << later.result().error().message;
    EXPECT_EQ(later.metrics().queue_seconds, 2);
    EXPECT_EQ(b.metrics().n_expired, 2u);
    r.deadline_seconds = -1;
    EXPECT_EQ(b.submit(r).error().code, Errc::invalid_argument);
}

TEST(Batcher, RefusesWithNumbers) {
    const Model m = load(256);
    Batcher b = make(m, {.n_ctx = 128, .max_running = 1, .max_waiting = 2});
    auto refused = [&](Request r, Errc code, const char* words) {
        const auto t = b.submit(std::move(r));
        ASSERT_FALSE(t.ok());
        EXPECT_EQ(t.error().code, code) << t.error().message;
        EXPECT_NE(t.error().message.find(words), std::string::npos) << t.error().message;
    };
    refused(plain(prompt_of(129), 1), Errc::context_full,
            "a prompt of 129 tokens can never run: a request may have 128");
    refused(plain({1, -1}, 1), Errc::invalid_argument, "token -1 at index 1");
    Request bad = plain({1}, 1);
    bad.options.sampler.top_p = -1;
    refused(bad, Errc::invalid_argument, "top_p");
    bad = plain({1}, 1);
    bad.options.stop = {""};
    refused(bad, Errc::invalid_argument, "stop string");
    for (int i = 0; i < 2; ++i) submit(b, plain(prompt_of(4), 9));
    refused(plain(prompt_of(4), 9), Errc::queue_full, "the queue is full: 2 requests wait, 0 run; try again later");
    b.step();
    submit(b, plain(prompt_of(4), 9));
    refused(plain(prompt_of(4), 9), Errc::queue_full, "2 requests wait, 1 run");
    b.run_until_idle();
    EXPECT_EQ(b.metrics().n_finished, 3u);
    EXPECT_EQ(b.metrics().n_refused, 2u);
    EXPECT_EQ(Batcher::create(m, {.n_ctx = 257}).error().code, Errc::invalid_argument);
    EXPECT_EQ(Batcher::create(m, {.max_running = 0}).error().code, Errc::invalid_argument);
    EXPECT_EQ(Batcher::create(m, {.max_waiting = 0}).error().code, Errc::invalid_argument);
}

TEST(Batcher, SessionsBesideItTakePagesToo) {
    const Model m = load(256);
    Batcher b = make(m);
    const Request r = plain(prompt_of(30), 80);
    const GenerateResult want = alone(m, r);
    auto s = m.new_session();
    ASSERT_TRUE(s->decode(prompt_of(230, 0)).ok());  // leaves one page
    const Ticket none = submit(b, r);
    b.run_until_idle();
    ASSERT_FALSE(none.result().ok());
    EXPECT_EQ(none.result().error().code, Errc::context_full);
    EXPECT_NE(none.result().error().message.find("no room for 30 tokens: 16 of 256 are free"), std::string::npos)
        << none.result().error().message;
    ASSERT_TRUE(s->truncate(180).ok());  // four pages: enough to begin, not to end
    const Ticket part = submit(b, r);
    b.run_until_idle();
    ASSERT_FALSE(part.result().ok());
    EXPECT_EQ(part.next_tokens(0), std::vector<Token>(want.tokens.begin(), want.tokens.begin() + 35))
        << "64 positions, and a token behind the last";
    ASSERT_TRUE(s->truncate(0).ok());
    const Ticket all = submit(b, r);
    b.run_until_idle();
    expect_same(all.result(), want, 0);
}

TEST(Batcher, ItsOwnThreadSleepsStopsAndGoesOn) {
    const Model m = load();
    std::optional<Ticket> left;
    {
        Batcher b = make(m, {.max_running = 1});
        ASSERT_TRUE(b.start().ok());
        EXPECT_EQ(b.start().error().code, Errc::invalid_argument);
        const Ticket a = submit(b, plain(prompt_of(4), 5));
        a.wait();
        const Ticket c = submit(b, plain(prompt_of(4), 5));  // wakes it up
        EXPECT_EQ(c.result()->tokens, a.result()->tokens);
        b.stop();
        b.stop();
        const Ticket d = submit(b, plain(prompt_of(4), 5));
        EXPECT_FALSE(d.wait_for(0));
        Batcher moved = std::move(b);
        ASSERT_TRUE(moved.start().ok());
        EXPECT_TRUE(d.wait_for(1e9));
        EXPECT_EQ(d.result()->tokens, a.result()->tokens);
        moved.stop();
        left = submit(moved, plain(prompt_of(4), 5));
    }
    ASSERT_TRUE(left->done()) << "whoever waits would wait for ever";
    EXPECT_EQ(left->result()->stop_reason, StopReason::cancelled);
}

TEST(Batcher, ADecodeStepAllocatesNothing) {
#ifdef QUERN_TEST_SANITIZED
    GTEST_SKIP() << "sanitizers bring their own operator new";
#endif
    const Model m = load();
    Batcher b = make(m);
    for (Token i = 0; i < 5; ++i) {
        Request r = plain(prompt_of(20, i), 120);
        r.options.sampler.temperature = 0.8f;
        r.options.sampler.repeat_penalty = 1.1f;
        r.options.stop = {"never there"};
        submit(b, r);
    }
    for (int i = 0; i < 15; ++i) b.step();  // the pieces of text have found their size
    const auto before = test::allocation_count();
    for (int i = 0; i < 90; ++i) b.step();  // past a page
    EXPECT_EQ(test::allocation_count(), before);
    EXPECT_EQ(b.metrics().n_running, 5u);
}

TEST(Batcher, Metrics) {
    const Model m = load(1024, 32);
    double time = 0;
    Batcher b = make(m, {.max_running = 4, .clock = [&] { return time += 1; }});
    const Ticket a = submit(b, plain(prompt_of(40), 5)), c = submit(b, plain(prompt_of(8, 60), 2));
    b.run_until_idle();
    const RequestMetrics r = a.metrics();
    EXPECT_EQ(r.n_prompt, 40u);
    EXPECT_EQ(r.n_generated, 5u);
    EXPECT_GT(r.queue_seconds, 0);
    EXPECT_EQ(r.first_token_seconds, r.queue_seconds + r.prefill_seconds);
    EXPECT_EQ(r.total_seconds, r.first_token_seconds + r.decode_seconds);
    EXPECT_EQ(a.result()->first_token_seconds, r.first_token_seconds);
    EXPECT_EQ(nlohmann::json::parse(r.to_json())["decode_seconds"], r.decode_seconds);
    const BatchMetrics t = b.metrics();
    EXPECT_EQ(t.n_prompt, 48u);
    EXPECT_EQ(t.n_generated, 7u);
    EXPECT_EQ(t.n_steps, 6u) << "32; 8 and 8; then a token a step of the four left, that of the other among them";
    EXPECT_DOUBLE_EQ(t.mean_tokens, (32 + 16 + 2 + 3) / 6.0);
    EXPECT_DOUBLE_EQ(t.mean_sequences, (1 + 2 + 2 + 3) / 6.0);
    EXPECT_DOUBLE_EQ(t.occupancy, t.mean_sequences / 4);
    EXPECT_EQ(t.pages_peak, 4u);
    EXPECT_EQ(t.pages_used, 0u);
    EXPECT_EQ(t.queue.max, c.metrics().queue_seconds);
    const auto json = nlohmann::json::parse(t.to_json());
    EXPECT_EQ(json["n_finished"], 2);
    EXPECT_EQ(json["first_token"]["mean"], t.first_token.mean);
    EXPECT_EQ(t.decode.count, 5u) << "steps that gave tokens";
    EXPECT_EQ(t.sampling.count, 7u);
    EXPECT_EQ(t.detokenize.count, 7u);
    EXPECT_EQ(t.overhead.count, 7u);
    EXPECT_EQ(t.token.count, 5u) << "the first of each has none before it";
    EXPECT_EQ(t.request.count, 2u);
}

/// A clock by which each step takes as long as the requests it runs say: the tuner then does what it does in adapt_test.
TEST(Batcher, AdaptsToItsGoals) {
    std::vector<std::string> log;
    auto loaded = Model::load((test::tiny_dir() / "llama-q4_0.gguf").string(), {.n_threads = 2, .n_ctx = 4096, .n_batch = 64, .on_log = [&](LogLevel, std::string_view text) { log.emplace_back(text); }});
    ASSERT_TRUE(loaded.ok());
    log.clear();
    double time = 0;
    std::uint32_t running = 0;
    BatcherOptions o{.n_ctx = 128, .max_running = 16, .clock = [&] { return time += 0.001 * running; }};
    o.adapt = {.on = true, .token_seconds = 0.020, .min_running = 2};
    Batcher b = make(*loaded, o);
    std::vector<Ticket> tickets;
    for (int i = 0; i < 40; ++i) tickets.push_back(submit(b, plain(prompt_of(8), 100)));
    EXPECT_EQ(b.metrics().max_running, 16u);
    do running = b.metrics().n_running;
    while (b.step());
    ASSERT_FALSE(log.empty());
    EXPECT_EQ(log.front().find("adapt: n_running 16 -> "), 0u) << log.front();
    const BatchMetrics m = b.metrics();
    EXPECT_LT(m.max_running, 16u) << "16 requests take longer than the goal";
    EXPECT_GE(m.max_running, 2u);
    EXPECT_EQ(m.n_finished, 40u);
    auto alone = loaded->new_session(128);
    const auto want = alone->generate(prompt_of(8), plain(prompt_of(8), 100).options);
    for (const Ticket& t : tickets) EXPECT_EQ(t.result()->tokens, want->tokens) << "no result changes";
}

TEST(Batcher, AdaptOptionsOutOfRange) {
    const Model m = load(1024, 32);
    const auto refuses = [&](AdaptOptions a, const std::string& words) {
        a.on = true;
        const auto b = Batcher::create(m, {.max_running = 8, .adapt = a});
        ASSERT_FALSE(b.ok()) << words;
        EXPECT_NE(b.error().message.find(words), std::string::npos) << b.error().message;
    };
    refuses({.token_seconds = -1}, "not negative");
    refuses({.tokens_per_second = std::numeric_limits<double>::quiet_NaN()}, "not negative");
    refuses({.min_running = 9}, "min_running is 9; it is 1 to max_running, 8");
    refuses({.min_prefill = 33}, "min_prefill is 33; it is 1 to the model's n_batch, 32");
    refuses({.max_threads = 1000}, "max_threads");
    refuses({.min_threads = 3, .max_threads = 2}, "3 to 2");
}

}  // namespace
}  // namespace quern
