// SPDX-License-Identifier: Apache-2.0
// Random schedules of submit, cancel, step, fork, decode, truncate, save, restore and forget on one model, whose cache
// is too small for all of it: requests preempt each other, kept texts are evicted, and with two tiers positions
// migrate. What comes out must be what one session alone gives, and every page must be free in the end.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <random>

#include "engine/api/model_impl.h"
#include "tests/support/models.h"

namespace quern {
namespace {

// QUERN_TEST_SCHEDULES asks for another number. A thousand take the thread sanitizer a quarter of an hour.
#ifdef __SANITIZE_THREAD__
constexpr std::uint32_t kSchedules = 100;
#else
constexpr std::uint32_t kSchedules = 1000;
#endif
constexpr std::size_t kTexts = 6, kAnswer = 48;

/// A prompt and its greedy continuation.
struct Text {
    std::vector<Token> all;
    std::size_t n_prompt = 0;
};

GenerateOptions greedy(std::int64_t n) {
    GenerateOptions o;
    o.sampler.temperature = 0;
    o.max_tokens = n;
    o.ignore_end_of_generation = true;
    return o;
}

/// A model, and what it says alone.
struct Subject {
    Model model;
    std::vector<Text> texts;
    std::uint32_t model_sessions = 0;  // kv_sessions
};

Subject make_subject(ModelOptions options) {
    const std::string path = (test::tiny_dir() / "llama-q4_0.gguf").string();
    options.n_threads = 2;
    auto model = Model::load(path, options);
    EXPECT_TRUE(model.ok()) << (model ? "" : model.error().message);
    options.n_ctx = 512;
    options.prefix_cache = false;
    auto alone = Model::load(path, options);
    EXPECT_TRUE(alone.ok());
    Subject out{*std::move(model), {}, options.kv_sessions};
    std::mt19937 random(3);
    for (std::size_t i = 0; i < kTexts; ++i) {
        Text t;
        t.n_prompt = 1 + random() % 60;
        for (std::size_t k = 0; k < t.n_prompt; ++k)  // half of them begin alike
            t.all.push_back(static_cast<Token>(i % 2 ? 5 + k : random() % 100));
        t.all[t.n_prompt - 1] = static_cast<Token>(200 + i);
        auto session = alone->new_session();
        auto answer = session->generate(t.all, greedy(kAnswer));
        EXPECT_TRUE(answer.ok());
        t.all.insert(t.all.end(), answer->tokens.begin(), answer->tokens.end());
        out.texts.push_back(std::move(t));
    }
    return out;
}

bool begins(std::span<const Token> text, std::span<const Token> with) {
    return with.size() <= text.size() && std::equal(with.begin(), with.end(), text.begin());
}

class Schedule {
public:
    Schedule(const Subject& subject, std::uint32_t seed)
        : subject_(subject),
          random_(seed),
          file_(std::filesystem::temp_directory_path() /
                ("quern-schedule-" + std::to_string(::testing::UnitTest::GetInstance()->random_seed()) + "-" +
                 std::to_string(seed))) {}
    ~Schedule() { std::filesystem::remove(file_); }

    void run() {
        BatcherOptions options;
        options.max_running = 1 + pick(6);
        options.n_prefill = pick(2) ? 1 + pick(20) : 0;
        auto batcher = Batcher::create(subject_.model, options);
        ASSERT_TRUE(batcher.ok()) << batcher.error().message;
        batcher_ = &*batcher;
        if (pick(2)) {
            ASSERT_TRUE(batcher->start().ok());
            own_thread_ = true;
        }
        for (std::uint32_t n = 10 + pick(30); n > 0 && !::testing::Test::HasFailure(); --n) act();
        sessions_.clear();
        batcher->stop();
        batcher->run_until_idle();
        for (const auto& [ticket, text, n, cancelled] : requests_) check(ticket, text, n, cancelled);
    }

    std::uint32_t n_done = 0, n_full = 0;  // requests; those that found no page

private:
    struct Submitted {
        Ticket ticket;
        const Text* text;
        std::size_t n;  // tokens asked for
        bool cancelled;
    };
    struct Held {
        Session session;
        const Text* text;
    };

    std::uint32_t pick(std::uint32_t n) { return static_cast<std::uint32_t>(random_() % n); }
    Held& any() { return sessions_[pick(static_cast<std::uint32_t>(sessions_.size()))]; }

    void act() {
        const std::uint32_t what = pick(10);
        if (what < 3) return submit();
        if (what == 3) return cancel();
        if (what == 4) {
            for (std::uint32_t n = own_thread_ ? 0 : 1 + pick(8); n > 0; --n) batcher_->step();
            return;
        }
        if (sessions_.empty() || what == 5) return open();
        switch (what) {
            case 6:
                return go_on();
            case 7:
                return fork();
            case 8:
                return save_and_restore();
            default:
                return forget();
        }
    }

    void submit() {
        const Text& t = subject_.texts[pick(kTexts)];
        Request r;
        r.prompt.assign(t.all.begin(), t.all.begin() + static_cast<std::ptrdiff_t>(t.n_prompt));
        const std::uint32_t n = pick(kAnswer);
        r.options = greedy(n);
        r.priority = static_cast<std::int32_t>(pick(3));
        auto ticket = batcher_->submit(std::move(r));
        ASSERT_TRUE(ticket.ok()) << ticket.error().message;
        requests_.push_back({*std::move(ticket), &t, n, false});
    }

    void cancel() {
        if (requests_.empty()) return;
        Submitted& s = requests_[pick(static_cast<std::uint32_t>(requests_.size()))];
        s.ticket.cancel();
        s.cancelled = true;
    }

    /// Whatever a session did: it went well, or there was no page; its tokens are those of its text.
    void expect_sound(const Held& h, const Status& s) {
        EXPECT_TRUE(s.ok() || s.error().code == Errc::context_full) << (s ? "" : s.error().message);
        EXPECT_TRUE(begins(h.text->all, h.session.tokens()));
    }

    void open() {
        if (sessions_.size() == 4) return forget();
        const Text& t = subject_.texts[pick(kTexts)];
        auto session = subject_.model.new_session();
        ASSERT_TRUE(session.ok());
        sessions_.push_back({*std::move(session), &t});
        expect_sound(sessions_.back(), sessions_.back().session.decode(std::span(t.all).first(t.n_prompt)));
    }

    void go_on() {
        Held& h = any();
        const std::size_t have = h.session.tokens().size();
        if (have < h.text->n_prompt) return expect_sound(h, h.session.decode({&h.text->all[have], 1}));
        if (have == h.text->all.size())
            return expect_sound(h, h.session.truncate(pick(static_cast<std::uint32_t>(have))));
        const std::size_t n = std::min<std::size_t>(1 + pick(12), h.text->all.size() - have);
        GenerateOptions o = greedy(static_cast<std::int64_t>(n));
        o.lookup = pick(2);
        const auto answer = h.session.generate({}, o);
        expect_sound(h, answer ? Status{} : Status(answer.error()));
        const bool whole = answer && answer->stop_reason == StopReason::max_tokens;
        EXPECT_TRUE(!whole || h.session.tokens().size() == have + n);
    }

    void fork() {
        if (sessions_.size() == 4) return;
        Held& h = any();
        auto other = h.session.fork();
        if (!other) return expect_sound(h, other.error());
        const auto at = static_cast<std::ptrdiff_t>(&h - sessions_.data());
        sessions_.push_back({*std::move(other), h.text});
        EXPECT_TRUE(std::ranges::equal(sessions_.back().session.tokens(),
                                       sessions_[static_cast<std::size_t>(at)].session.tokens()));
    }

    void save_and_restore() {
        Held& from = any();
        const Status saved = from.session.save(file_.string());
        ASSERT_TRUE(saved.ok()) << saved.error().message;
        Held& to = any();
        const Status s = to.session.restore(file_.string());
        if (s) to.text = from.text;
        expect_sound(to, s);
        EXPECT_TRUE(!s || std::ranges::equal(to.session.tokens(), from.session.tokens()));
    }

    void forget() {
        std::swap(any(), sessions_.back());
        sessions_.pop_back();
    }

    void check(const Ticket& ticket, const Text* text, std::size_t n, bool cancelled) {
        const auto& result = ticket.result();
        const std::vector<Token> got = ticket.next_tokens(0);
        EXPECT_TRUE(begins(std::span(text->all).subspan(text->n_prompt), got)) << "request " << ticket.id();
        ++n_done;
        if (!result) {
            EXPECT_EQ(result.error().code, Errc::context_full) << result.error().message;
            ++n_full;
        } else if (!cancelled) {
            EXPECT_EQ(got.size(), n);
        }
    }

    const Subject& subject_;
    std::mt19937 random_;
    const std::filesystem::path file_;
    Batcher* batcher_ = nullptr;
    bool own_thread_ = false;
    std::vector<Submitted> requests_;
    std::vector<Held> sessions_;
};

TEST(Schedules, GiveEqualResultsAndEveryPageBack) {
    // 14 to 20 pages of 16 tokens where a text takes 7.
    std::vector<Subject> subjects;
    const auto add = [&](ModelOptions o, std::uint32_t n_ctx, std::uint32_t n_batch) {
        o.n_ctx = n_ctx;
        o.n_batch = n_batch;
        subjects.push_back(make_subject(o));
    };
    add({}, 224, 48);
    add({.prefix_cache = false}, 320, 16);
    add({.kv_type = KvType::f32}, 320, 512);
    add({.kv_type = KvType::two_tier, .kv_tail = 33, .kv_sessions = 4}, 256, 64);
    add({.kv_type = KvType::q8, .kv_sessions = 5}, 256, 128);
    add({.kv_type = KvType::two_tier, .kv_tail = 1, .kv_sessions = 2}, 320, 128);
    std::uint32_t n_done = 0, n_full = 0;
    const char* asked = std::getenv("QUERN_TEST_SCHEDULES");
    const unsigned long count = asked ? std::strtoul(asked, nullptr, 10) : kSchedules;
    for (std::uint32_t seed = 0; seed < count && !HasFailure(); ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        const Subject& s = subjects[seed % subjects.size()];
        {
            Schedule schedule(s, seed);
            schedule.run();
            n_done += schedule.n_done;
            n_full += schedule.n_full;
        }
        const engine::Executor& e = *Internals::of(s.model).executor;
        ASSERT_EQ(e.pages().n_free(), e.pages().n_pages());
        const engine::PagePool* exact = e.exact_pages();
        ASSERT_TRUE(exact == nullptr || exact->n_free() == exact->n_pages());
        ASSERT_TRUE(exact == nullptr || exact->n_promises() == s.model_sessions * e.exact_pages_each());
    }
    EXPECT_LT(n_full, n_done / 4) << "most requests are to have run, of " << n_done;
}

}  // namespace
}  // namespace quern
