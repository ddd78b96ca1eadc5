// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "engine/api/answer.h"
#include "engine/backend/pack_cache.h"
#include "engine/core/clock.h"
#include "engine/run/compress.h"
#include "engine/run/lookup.h"

namespace quern {

Session::Session(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;
Session::~Session() = default;

Status Session::decode(std::span<const Token> tokens) {
    engine::Sequence& s = impl_->sequence;
    const auto before = static_cast<std::uint32_t>(s.tokens().size());
    if (auto st = s.append(tokens); !st) return st;
    if (auto st = s.run(); !st) {
        s.truncate(before);
        return st;
    }
    return {};
}

Status Session::decode_all(std::span<const Token> tokens, std::vector<float>& logits) {
    engine::Sequence& s = impl_->sequence;
    // Tokens that an earlier call left to be run are not among those asked for.
    if (auto st = s.run(); !st) return st;
    const auto before = static_cast<std::uint32_t>(s.tokens().size());
    if (auto st = s.append(tokens, false); !st) return st;
    if (auto st = s.run_all(logits); !st) {
        s.truncate(before);
        return st;
    }
    return {};
}

std::span<const float> Session::logits() const { return impl_->sequence.logits(); }
std::span<const Token> Session::tokens() const { return impl_->sequence.tokens(); }
std::uint32_t Session::n_ctx() const { return impl_->sequence.n_ctx(); }

Status Session::truncate(std::uint32_t n) {
    const std::size_t have = impl_->sequence.tokens().size();
    if (n > have) return Error{Errc::invalid_argument, "cannot truncate to " + std::to_string(n) + " tokens: the session has " + std::to_string(have)};
    impl_->sequence.truncate(n);
    return {};
}

Result<Session> Session::fork() const {
    auto copy = std::make_unique<Impl>(impl_->model, impl_->sequence.n_ctx());
    if (auto st = copy->sequence.fork(impl_->sequence); !st) return std::move(st).error();
    if (const auto& d = impl_->draft) {
        copy->draft = std::make_unique<SessionDraft>(d->model, *impl_->model, d->options);
        copy->draft_bytes = impl_->draft_bytes.load();
    }
    return Session(std::move(copy));
}

Status Session::save(const std::string& path, std::string_view note) const {
    return impl_->sequence.save(path, engine::hash_model(*impl_->model->file), note);
}

Status Session::restore(const std::string& path, std::string* note) {
    engine::Sequence& s = impl_->sequence;
    if (auto st = s.restore(path, engine::hash_model(*impl_->model->file), note); !st) return st;
    return s.tokens().empty() ? Status{} : s.need_logits();
}

Metrics Session::metrics() const {
    Metrics m;
    impl_->recorder.fill(m);
    impl_->model->fill(m);
    m.draft_bytes = impl_->draft_bytes;
    return m;
}

void Session::cancel() noexcept { impl_->cancelled.store(true, std::memory_order_relaxed); }

namespace {

/// The loop behind generate(): sample, show, append, run.
class Generation {
public:
    Generation(Session::Impl& s, const GenerateOptions& o, Answer answer) : s_(s), o_(o), answer_(std::move(answer)) {
        if (o.lookup) lookup_.emplace(s.sequence.reserve_ahead(engine::Lookup::kMost));
        if (s.draft) answer_.reserve_verify();
        answer_.record_to(&s.recorder);
    }

    Result<GenerateResult> run(std::span<const Token> prompt) {
        if (s_.draft)
            if (auto st = s_.draft->draft.begin(o_.sampler, s_.sequence.reserve_ahead(engine::StepCosts::kMost)); !st) return std::move(st).error();
        if (auto st = prefill(prompt); !st) return std::move(st).error();
        if (!answer_.over()) {
            engine::Stopwatch clock;
            if (auto st = loop(); !st) return std::move(st).error();
            answer_.result().generate_seconds = clock.seconds();
        }
        count_guesses();
        GenerateResult& r = answer_.result();
        const auto add = [&r](const auto& guesser) {
            r.n_guessed += static_cast<std::uint32_t>(guesser.n_guessed());
            r.n_accepted += static_cast<std::uint32_t>(guesser.n_accepted());
        };
        if (lookup_) add(*lookup_);
        if (s_.draft) add(s_.draft->draft);
        s_.recorder.count({.n_guessed = r.n_guessed, .n_accepted = r.n_accepted});
        s_.recorder.add(engine::Stage::request, clock_.seconds());
        return answer_.finish();
    }

private:
    /// Of one token after the other, for the metrics.
    class Timing {
    public:
        explicit Timing(Generation& g) : g_(g), last_(now()) {}
        /// The loop has taken a token.
        void token() {
            const Moment m = now();
            const double all = m.all - last_.all, run = m.run - last_.run, callbacks = m.callbacks - last_.callbacks;
            engine::Recorder& to = g_.s_.recorder;
            if (n_++ > 0) to.add(engine::Stage::token, all);
            if (run > 0) to.add(engine::Stage::decode, run);
            to.add(engine::Stage::overhead, std::max(0.0, all - run - (m.guess - last_.guess) - callbacks));
            to.count({.busy_seconds = all - callbacks});
            last_ = m;
        }

    private:
        struct Moment { double all, run, guess, callbacks; };
        Moment now() const { return {g_.clock_.seconds(), g_.s_.sequence.run_seconds(), g_.guess_seconds_, g_.answer_.callback_seconds()}; }

        Generation& g_;
        Moment last_;
        std::uint64_t n_ = 0;
    };

    Status prefill(std::span<const Token> prompt) {
        engine::Sequence& q = s_.sequence;
        if (prompt.size() > q.room() && goes_on() && prompt.size() < q.n_ctx() - o_.context_keep)
            if (auto st = make_room(prompt.size()); !st) return st;
        const auto before = static_cast<std::uint32_t>(q.tokens().size());
        if (auto st = q.append(prompt); !st) return st;
        GenerateResult& r = answer_.result();
        r.n_prompt = static_cast<std::uint32_t>(prompt.size());
        r.n_reused = prompt.empty() ? 0 : q.n_reused();
        bool go = true;
        const auto on_step = [&](std::uint32_t n, std::uint32_t all) {
            go = !o_.on_prefill || o_.on_prefill(n + r.n_reused, all + r.n_reused);
            return (go && !cancelled()) || n == all;   // behind the last step there is nothing to cut short
        };
        auto st = q.run(on_step);
        if (st) st = q.need_logits();
        r.prompt_seconds = clock_.seconds();
        s_.recorder.add(engine::Stage::prefill, r.prompt_seconds);
        s_.recorder.count({.n_prompt = r.n_prompt, .n_reused = r.n_reused});
        if (st ? !go : st.error().code == Errc::cancelled) {
            answer_.stop(StopReason::cancelled);
            return {};
        }
        if (!st) q.truncate(before);
        answer_.read(q.tokens());
        const std::uint64_t most = o_.max_tokens < 0 || goes_on() ? q.n_ctx() : static_cast<std::uint64_t>(o_.max_tokens);
        answer_.reserve(static_cast<std::uint32_t>(std::min<std::uint64_t>(most, q.n_ctx())));
        return st;
    }

    Status loop() {
        engine::Sequence& q = s_.sequence;
        for (Timing timing(*this); !answer_.over(); timing.token()) {
            if (cancelled()) answer_.stop(StopReason::cancelled);
            if (answer_.at_limit(goes_on() ? 1 : q.room())) break;
            if (q.room() == 0)
                if (auto st = make_room(0); !st) return st;
            // The token before this one is run only now, so that the last one costs no step.
            if (auto st = advance(); !st) return st;
            if (answer_.over()) break;
            auto token = next_token();
            if (!token) return std::move(token).error();
            if (answer_.result().tokens.empty()) {
                answer_.result().first_token_seconds = clock_.seconds();
                s_.recorder.add(engine::Stage::first_token, clock_.seconds());
            }
            if (answer_.over()) break;
            if (auto st = q.append({&*token, 1}); !st) {
                if (st.error().code != Errc::context_full) return st;
                answer_.stop(StopReason::context_full);
                break;
            }
            answer_.take(*token);
        }
        return {};
    }

    Result<Token> next_token() {
        const engine::Sequence& q = s_.sequence;
        if (!drafted_ || !q.has_guess()) return answer_.sample(q.logits());
        const std::uint32_t i = q.n_taken();
        return answer_.verify(q.logits(), guesses_[i], s_.draft->draft.drawn_from(i));
    }

    /// Gets the logits after the last token.
    Status advance() {
        engine::Sequence& q = s_.sequence;
        if ((lookup_ || s_.draft) && q.n_waiting() == 1) return advance_guessing();
        auto st = q.run([this](std::uint32_t, std::uint32_t) { return !cancelled(); });
        if (st || st.error().code != Errc::cancelled) return st;
        answer_.stop(StopReason::cancelled);
        return {};
    }

    Status advance_guessing() {
        engine::Sequence& q = s_.sequence;
        engine::Draft* const draft = s_.draft ? &s_.draft->draft : nullptr;
        count_guesses();
        engine::Stopwatch clock;
        std::size_t room = q.room();
        if (o_.max_tokens >= 0) room = std::min(room, static_cast<std::size_t>(o_.max_tokens) - answer_.result().tokens.size() - 1);
        guesses_ = lookup_ ? lookup_->guess(q.tokens(), static_cast<std::uint32_t>(room)) : std::span<const Token>();
        const bool looked_up = !guesses_.empty();
        if (draft && !looked_up) guesses_ = draft->guess(q.tokens(), static_cast<std::uint32_t>(room));
        drafted_ = !looked_up;
        const double spent = clock.seconds();
        s_.recorder.add(engine::Stage::guess, spent);
        guess_seconds_ += spent;
        clock.restart();
        auto st = q.run_ahead(guesses_);
        if (!st && st.error().code == Errc::context_full) {   // no page for guesses
            if (lookup_) lookup_->drop();
            if (draft) draft->drop();
            st = q.run_ahead({});
        }
        const double seconds = clock.seconds();
        if (st && lookup_ && (looked_up || guesses_.empty())) lookup_->ran(seconds);
        if (st && draft && !looked_up) draft->ran(seconds);
        return st;
    }

    /// Tells those who guessed how it went.
    void count_guesses() {
        if (lookup_) lookup_->accepted(s_.sequence.n_taken());
        if (s_.draft) s_.draft->draft.accepted(s_.sequence.n_taken());
    }

    bool goes_on() const { return o_.context_policy != ContextPolicy::stop; }

    /// Drops some of the tokens behind the first context_keep, so that at least one more, or `more`, has room. Those behind the
    /// first one dropped wait to be run: their keys were rotated for positions that they no longer have.
    Status make_room(std::size_t more) {
        engine::Sequence& q = s_.sequence;
        const std::size_t have = q.tokens().size(), keep = std::min<std::size_t>(o_.context_keep, have), rest = have - keep;
        const auto wanted = static_cast<std::size_t>(static_cast<double>(rest) * o_.context_overlap);
        std::size_t n = std::min({wanted, rest - 1, q.n_ctx() - keep - more});
        if (more == 0) n = std::max<std::size_t>(n, 1);
        std::vector<Token> left;   // behind the first `same` tokens
        std::size_t same = keep;
        if (o_.context_policy == ContextPolicy::slide) {
            left.assign(q.tokens().end() - static_cast<std::ptrdiff_t>(n), q.tokens().end());
        } else {
            auto kept = attended(static_cast<std::uint32_t>(keep), static_cast<std::uint32_t>(keep + n));
            if (!kept) return std::move(kept).error();
            for (same = 0; same < kept->size() && (*kept)[same] == same;) ++same;
            for (std::size_t i = same; i < kept->size(); ++i) left.push_back(q.tokens()[(*kept)[i]]);
        }
        q.truncate(static_cast<std::uint32_t>(same));
        if (auto st = q.append(left); !st) return st;
        const std::size_t now = same + left.size();
        answer_.result().n_dropped += static_cast<std::uint32_t>(have - now);
        if (o_.on_slide) o_.on_slide(static_cast<std::uint32_t>(have - now), static_cast<std::uint32_t>(now));
        return {};
    }

    /// Positions that ContextPolicy::compress keeps.
    Result<std::vector<std::uint32_t>> attended(std::uint32_t keep, std::uint32_t most) {
        engine::Sequence& q = s_.sequence;
        auto shares = q.observe();
        if (!shares) return std::move(shares).error();
        if (std::ranges::all_of(*shares, [](double x) { return x == 0; }))
            return Error{Errc::unsupported, "context_policy compress must know what attention is spent on, which what this model runs on does not tell; choose slide or stop"};
        return engine::keep_attended(*shares, static_cast<std::uint32_t>(q.tokens().size()), keep, most);
    }

    bool cancelled() const { return s_.cancelled.load(std::memory_order_relaxed); }

    Session::Impl& s_;
    const GenerateOptions& o_;
    Answer answer_;
    std::optional<engine::Lookup> lookup_;
    std::span<const Token> guesses_;   // of the last step
    bool drafted_ = false;             // they are the draft's
    double guess_seconds_ = 0;
    engine::Stopwatch clock_;
};

Status check_context(const GenerateOptions& o, std::uint32_t n_ctx) {
    if (o.context_policy == ContextPolicy::stop) return {};
    if (o.context_policy != ContextPolicy::slide && o.context_policy != ContextPolicy::compress) return Error{Errc::invalid_argument, "context_policy is neither stop nor slide nor compress"};
    if (!(o.context_overlap >= 0 && o.context_overlap < 1)) return Error{Errc::invalid_argument, "context_overlap is " + std::to_string(o.context_overlap) + "; it is 0 to below 1"};
    if (std::uint64_t{o.context_keep} + 2 > n_ctx)
        return Error{Errc::invalid_argument, "context_keep is " + std::to_string(o.context_keep) + ", which leaves nothing to drop in a context of " + std::to_string(n_ctx) + " tokens"};
    return {};
}

}  // namespace

Result<GenerateResult> Session::generate(std::span<const Token> prompt, const GenerateOptions& options) {
    impl_->cancelled.store(false, std::memory_order_relaxed);
    if (auto s = impl_->model->need_tokenizer(); !s) return std::move(s).error();
    if (auto s = check_context(options, n_ctx()); !s) return std::move(s).error();
    auto answer = Answer::create(*impl_->model, options);
    if (!answer) return std::move(answer).error();
    return Generation(*impl_, options, std::move(*answer)).run(prompt);
}

const char* to_string(StopReason r) {
    switch (r) {
        case StopReason::end_of_generation: return "end_of_generation";
        case StopReason::max_tokens: return "max_tokens";
        case StopReason::stop_string: return "stop_string";
        case StopReason::context_full: return "context_full";
        case StopReason::cancelled: return "cancelled";
    }
    return "unknown";
}

}  // namespace quern
