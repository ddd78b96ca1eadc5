// SPDX-License-Identifier: Apache-2.0
#include "engine/run/draft.h"

#include <algorithm>
#include <utility>

#include "engine/core/clock.h"

namespace quern::engine {
namespace {

constexpr double kMemory = 0.95, kMemoryOfAll = 0.98;   // what older tries still count after one more
constexpr double kForget = 0.99;                        // and after a step without guesses, so that it is tried again
constexpr double kHitRate = 0.7;                        // of all guesses, before anything is known
constexpr double kStep = 0.15;                          // a step of the draft against one of the target, likewise

/// Decode is bound by what it reads, where one memory is read; of two, nothing is known.
double expected_step(const Executor& draft, const Executor& target) {
    if (draft.offload().device || target.offload().device) return kStep;
    const double own = draft.cost().of(1, 1, 0).bytes, other = target.cost().of(1, 1, 0).bytes;
    return other > 0 ? own / other : kStep;
}

}  // namespace

Draft::Draft(Executor& executor, const Executor& target, std::uint32_t n_vocab, std::uint32_t n_ctx, std::uint32_t n_fixed)
    : sequence_(executor, n_ctx), n_vocab_(n_vocab), n_fixed_(n_fixed), expected_step_(expected_step(executor, target)) {
    guesses_.reserve(StepCosts::kMost);
    candidates_.resize(std::size_t{StepCosts::kMost} * kCandidates);
}

Status Draft::begin(const SamplerOptions& options, std::uint32_t most) {
    most_ = most;
    SamplerOptions o = options;
    greedy_ = o.temperature == 0;
    if (greedy_) {   // the best two, for how sure it is
        o.temperature = o.top_p = o.typical_p = 1;
        o.min_p = 0;
        o.top_k = 2;
    } else if (o.top_k == 0 || o.top_k > static_cast<std::int32_t>(kCandidates)) {
        o.top_k = kCandidates;
    }
    o.seed = ~o.seed;   // draws of its own: a guess must not depend on what the target is going to draw
    std::erase_if(o.logit_bias, [&](const auto& bias) { return static_cast<std::uint32_t>(bias.first) >= n_vocab_; });
    auto chain = Chain::create(o, n_vocab_);
    if (!chain) return std::move(chain).error();
    chain_.emplace(std::move(*chain));
    n_known_ = 0;
    n_guessed_ = n_accepted_ = 0;
    guesses_.clear();
    first_ = true;
    return {};
}

StepCosts::Width Draft::plan(std::uint32_t room) {
    const std::uint32_t most = std::min(most_, room);
    if (n_fixed_ > 0) return {std::min(n_fixed_, most), 0};
    if (!costs_.known() || costs_.losing()) return {};
    return costs_.best(most, rate_.of(kHitRate), step());
}

/// Reads what is new in the text; false where that cannot be.
bool Draft::catch_up(std::span<const Token> text) {
    const auto have = sequence_.tokens();
    const auto same = std::mismatch(have.begin(), have.end(), text.begin(), text.end()).first - have.begin();
    sequence_.truncate(static_cast<std::uint32_t>(same));
    if (static_cast<std::size_t>(same) < text.size() && !sequence_.append(text.subspan(static_cast<std::size_t>(same)))) return false;
    if (!sequence_.need_logits()) return false;
    // A text that slid keeps counting for the penalties, as it does in the target's sampler.
    n_known_ = std::min(n_known_, static_cast<std::uint32_t>(text.size()));
    for (; n_known_ < text.size(); ++n_known_) chain_->accept(text[n_known_]);
    return true;
}

std::span<const Token> Draft::guess(std::span<const Token> text, std::uint32_t room) {
    guesses_.clear();
    spent_ = 0;
    room = std::min({room, most_, sequence_.n_ctx() - std::min(sequence_.n_ctx(), static_cast<std::uint32_t>(text.size()))});
    const StepCosts::Width width = plan(room);
    if (width.n == 0) {
        rate_.tries *= kForget;
        rate_.hits *= kForget;
        return guesses_;
    }
    Stopwatch clock;
    if (!catch_up(text)) return guesses_;
    if (std::exchange(first_, false)) clock.restart();   // what the answer's prompt takes is the price of a draft at all
    run_guesses(width, n_fixed_ > 0 ? width.n : room);
    spent_ = clock.seconds();
    return guesses_;
}

/// A guess is given up before it is drawn or not at all: which ones are checked must not depend on what they are.
void Draft::run_guesses(StepCosts::Width width, std::uint32_t room) {
    double all = 1;          // chance that the target comes so far
    std::size_t told = 0;    // guesses that chain_ knows
    for (std::uint32_t i = 0; i < room; ++i) {
        Stopwatch clock;
        auto d = chain_->distribution(sequence_.logits().first(n_vocab_));
        if (!d) break;
        double sure = 0;
        for (const Candidate& c : *d) sure = std::max(sure, c.p);
        class_[i] = std::min(static_cast<std::uint32_t>((greedy_ ? 2 * sure - 1 : sure) * kClasses), kClasses - 1);
        all *= rates_[class_[i]].of(greedy_ ? sure : 0.3 + 0.7 * sure);
        // With more guesses than this one the step gives `all` tokens more and takes longer.
        if (n_fixed_ == 0 && i > 0 && all < width.tokens_per_second * (costs_.of(i + 1) - costs_.of(i))) break;
        const Token token = draw(*d);
        guesses_.push_back(token);
        if (guesses_.size() == room) break;
        if (n_fixed_ == 0 && all * rate_.of(kHitRate) < width.tokens_per_second * (step() + costs_.of(i + 2) - costs_.of(i + 1))) break;
        chain_->accept(token);
        ++told;
        const bool ok = sequence_.append({&token, 1}) && sequence_.run();
        const double seconds = clock.seconds();
        step_ = step_ > 0 && seconds > step_ ? step_ + 0.1 * (std::min(seconds, 2 * step_) - step_) : seconds;
        if (!ok) break;
    }
    chain_->take_back(std::span<const Token>(guesses_).first(told));
}

Token Draft::draw(std::span<const Candidate> from) {
    const auto i = static_cast<std::uint32_t>(guesses_.size());
    Candidate* const out = candidates_.data() + i * kCandidates;
    if (greedy_) {
        const auto best = std::max_element(from.begin(), from.end(), [](const auto& a, const auto& b) { return a.p < b.p; });
        *out = {best->id, best->logit, 1};
        n_candidates_[i] = 1;
        return best->id;
    }
    std::copy(from.begin(), from.end(), out);
    n_candidates_[i] = static_cast<std::uint32_t>(from.size());
    return chain_->draw();
}

void Draft::ran(double seconds) {
    n_guessed_ += guesses_.size();
    costs_.ran(static_cast<std::uint32_t>(guesses_.size()), seconds);
}

void Draft::accepted(std::uint32_t n) {
    if (guesses_.empty()) return;
    n_accepted_ += n;
    costs_.won(n, spent_);
    for (std::uint32_t i = 0; i < std::min<std::size_t>(n + 1, guesses_.size()); ++i) {
        rates_[class_[i]].add(i < n, kMemory);
        rate_.add(i < n, kMemoryOfAll);
    }
    guesses_.clear();
}

}  // namespace quern::engine
