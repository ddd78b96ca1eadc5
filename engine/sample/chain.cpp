// SPDX-License-Identifier: Apache-2.0
#include "engine/sample/chain.h"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <string_view>

#include "engine/core/exp.h"
#include "formats/text.h"

namespace quern::engine {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr std::int32_t kMaxWindow = 1 << 20;

bool better(const Candidate& a, const Candidate& b) { return a.logit != b.logit ? a.logit > b.logit : a.id < b.id; }

/// Calls f(index, value) for each value above `threshold`, which f may raise. NaN is above nothing.
template <class F>
void for_each_above(std::span<const float> values, const float& threshold, F f) {
    constexpr std::size_t block = 32;  // the inner test is branch-free, so it runs on vectors
    for (std::size_t i = 0; i < values.size(); i += block) {
        const std::size_t end = std::min(i + block, values.size());
        int any = 0;
        const float t = threshold;
        for (std::size_t j = i; j < end; ++j) any |= values[j] > t;
        if (any == 0) continue;
        for (std::size_t j = i; j < end; ++j) {
            if (values[j] > threshold) f(j, values[j]);
        }
    }
}

std::string text(float v) {
    char buffer[32];
    const auto end = std::to_chars(buffer, buffer + sizeof buffer, v).ptr;
    return std::string(buffer, end);
}

Status check(const SamplerOptions& o, std::uint32_t n_vocab) {
    const auto bad = [](std::string_view field, const std::string& value, std::string_view range) {
        return Error{Errc::invalid_argument, cat("sampler option ", field, " is ", value, "; it must be ", range)};
    };
    if (n_vocab == 0 || n_vocab > std::uint32_t{std::numeric_limits<Token>::max()}) {
        return Error{Errc::invalid_argument, cat("sampler: a vocabulary of ", n_vocab, " tokens cannot be")};
    }
    const auto in_unit = [](float v) { return v >= 0 && v <= 1; };  // false for NaN
    if (!(o.temperature >= 0) || !std::isfinite(o.temperature)) {
        return bad("temperature", text(o.temperature), "a finite number, 0 (greedy) or more");
    }
    if (o.top_k < 0) return bad("top_k", cat(o.top_k), "0 (off) or more");
    if (!in_unit(o.top_p)) return bad("top_p", text(o.top_p), "in 0 to 1 (off)");
    if (!in_unit(o.min_p)) return bad("min_p", text(o.min_p), "in 0 (off) to 1");
    if (!in_unit(o.typical_p)) return bad("typical_p", text(o.typical_p), "in 0 to 1 (off)");
    if (!(o.repeat_penalty > 0) || !std::isfinite(o.repeat_penalty)) {
        return bad("repeat_penalty", text(o.repeat_penalty), "a finite number above 0 (1: off)");
    }
    if (!std::isfinite(o.frequency_penalty)) {
        return bad("frequency_penalty", text(o.frequency_penalty), "a finite number (0: off)");
    }
    if (!std::isfinite(o.presence_penalty)) {
        return bad("presence_penalty", text(o.presence_penalty), "a finite number (0: off)");
    }
    if (o.penalty_last_n < -1 || o.penalty_last_n > kMaxWindow) {
        return bad("penalty_last_n", cat(o.penalty_last_n), cat("in 0 to ", kMaxWindow, ", or -1 (all tokens)"));
    }
    for (const auto& [token, bias] : o.logit_bias) {
        if (token < 0 || static_cast<std::uint32_t>(token) >= n_vocab) {
            return bad("logit_bias", cat("for token ", token), cat("for tokens 0 to ", n_vocab - 1));
        }
        if (std::isnan(bias) || bias == kInfinity) {
            return bad("logit_bias", cat(text(bias), " for token ", token),
                       "a finite number, or -infinity to ban the token");
        }
    }
    return {};
}

}  // namespace

Random::Random(std::uint64_t seed) {
    for (std::uint64_t& s : state_) {
        seed += 0x9e3779b97f4a7c15u;
        std::uint64_t z = seed;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        s = z ^ (z >> 31);
    }
}

std::uint64_t Random::next() {
    auto& s = state_;
    const std::uint64_t result = std::rotl(s[0] + s[3], 23) + s[0];
    const std::uint64_t shifted = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = std::rotl(s[3], 45);
    return result;
}

Result<Chain> Chain::create(const SamplerOptions& options, std::uint32_t n_vocab) {
    if (Status s = check(options, n_vocab); !s) return std::move(s).error();
    return Chain(options, n_vocab);
}

Chain::Chain(const SamplerOptions& options, std::uint32_t n_vocab)
    : options_(options),
      n_vocab_(n_vocab),
      penalties_(options.penalty_last_n != 0 &&
                 (options.repeat_penalty != 1 || options.frequency_penalty != 0 || options.presence_penalty != 0)),
      random_(options.seed) {
    candidates_.reserve(n_vocab);
    maxima_.reserve(n_vocab / kBlock + 1);
    sorted_maxima_.reserve(n_vocab / kBlock + 1);
    if (options.top_p < 1 || options.typical_p < 1) boundary_.reserve(n_vocab);
    if (penalties_ || !options.logit_bias.empty()) adjusted_.resize(n_vocab);
    if (!penalties_) return;
    if (options.penalty_last_n > 0) window_.resize(static_cast<std::size_t>(options.penalty_last_n) + kTakeBack);
    counts_.resize(n_vocab);
    listed_.resize(n_vocab);
    used_.reserve(n_vocab);
}

void Chain::reset() {
    random_ = Random(options_.seed);
    for (const Token t : used_) {
        counts_[static_cast<std::size_t>(t)] = 0;
        listed_[static_cast<std::size_t>(t)] = false;
    }
    used_.clear();
    n_seen_ = 0;
}

void Chain::accept(Token token) {
    if (!penalties_ || token < 0 || static_cast<std::uint32_t>(token) >= n_vocab_) return;
    if (!window_.empty()) {
        const std::size_t n = window_.size() - kTakeBack;  // that count
        if (n_seen_ >= n) --counts_[static_cast<std::size_t>(window_[(n_seen_ - n) % window_.size()])];
        window_[n_seen_ % window_.size()] = token;
    }
    ++n_seen_;
    count(token);
}

void Chain::count(Token token) {
    const auto i = static_cast<std::size_t>(token);
    ++counts_[i];
    if (listed_[i]) return;
    listed_[i] = true;
    used_.push_back(token);
}

void Chain::take_back(std::span<const Token> tokens) {
    if (!penalties_) return;
    for (std::size_t k = tokens.size(); k-- > 0;) {
        if (tokens[k] < 0 || static_cast<std::uint32_t>(tokens[k]) >= n_vocab_) continue;
        --n_seen_;
        --counts_[static_cast<std::size_t>(tokens[k])];
        const std::size_t n = window_.size() - kTakeBack;
        if (!window_.empty() && n_seen_ >= n) count(window_[(n_seen_ - n) % window_.size()]);
    }
}

void Chain::penalize() {
    std::size_t kept = 0;
    for (const Token token : used_) {
        const auto i = static_cast<std::size_t>(token);
        if (counts_[i] == 0) {
            listed_[i] = false;
            continue;
        }
        used_[kept++] = token;
        float& logit = adjusted_[i];
        // CTRL (arXiv 1909.05858) divides; a negative logit is multiplied instead, so that both make it less likely.
        logit = logit > 0 ? logit / options_.repeat_penalty : logit * options_.repeat_penalty;
        logit -= static_cast<float>(counts_[i]) * options_.frequency_penalty + options_.presence_penalty;
    }
    used_.resize(kept);
}

std::span<const float> Chain::adjust(std::span<const float> logits) {
    if (adjusted_.empty()) return logits;
    std::copy(logits.begin(), logits.end(), adjusted_.begin());
    for (const auto& [token, bias] : options_.logit_bias) adjusted_[static_cast<std::size_t>(token)] += bias;
    penalize();
    return adjusted_;
}

void Chain::collect(std::span<const float> logits) {
    candidates_.clear();
    const auto k = static_cast<std::size_t>(options_.temperature == 0 ? 1 : options_.top_k);
    if (k != 0 && k < logits.size()) {
        collect_top_k(logits, k);
    } else {
        for (std::size_t i = 0; i < logits.size(); ++i) {
            if (logits[i] > -kInfinity) candidates_.push_back({static_cast<Token>(i), logits[i], 0});
        }
    }
    // +infinity leaves only its equals, whose difference would be NaN.
    const auto infinite = [](const Candidate& c) { return c.logit == kInfinity; };
    if (std::any_of(candidates_.begin(), candidates_.end(), infinite)) {
        std::erase_if(candidates_, [&](const Candidate& c) { return !infinite(c); });
        for (Candidate& c : candidates_) c.logit = 0;
    }
}

/// A threshold that at least k logits are above, if so many are not -infinity: just below the k-th largest of the blocks' maxima.
/// Hardly any that does not stay is looked at again.
float Chain::scan_blocks(std::span<const float> logits, std::size_t k) {
    maxima_.clear();
    for (std::size_t i = 0; i < logits.size(); i += kBlock) {
        const std::size_t end = std::min(i + kBlock, logits.size());
        std::array<float, 32> lanes;   // side by side, so that they run on vectors
        lanes.fill(-kInfinity);
        std::size_t at = i;
        for (; at + lanes.size() <= end; at += lanes.size())
            for (std::size_t j = 0; j < lanes.size(); ++j) lanes[j] = logits[at + j] > lanes[j] ? logits[at + j] : lanes[j];
        for (; at < end; ++at) lanes[0] = logits[at] > lanes[0] ? logits[at] : lanes[0];
        for (std::size_t half = lanes.size() / 2; half > 0; half /= 2)   // halves, likewise
            for (std::size_t j = 0; j < half; ++j) lanes[j] = lanes[half + j] > lanes[j] ? lanes[half + j] : lanes[j];
        maxima_.push_back(lanes[0]);
    }
    if (k > maxima_.size()) return -kInfinity;
    sorted_maxima_.assign(maxima_.begin(), maxima_.end());
    const auto at = sorted_maxima_.begin() + static_cast<std::ptrdiff_t>(k - 1);
    std::nth_element(sorted_maxima_.begin(), at, sorted_maxima_.end(), std::greater<>());
    return std::nextafter(*at, -kInfinity);
}

void Chain::collect_top_k(std::span<const float> logits, std::size_t k) {
    float threshold = scan_blocks(logits, k);
    const auto add = [&](std::size_t i, float logit) { candidates_.push_back({static_cast<Token>(i), logit, 0}); };
    if (k <= maxima_.size()) {   // few are above, unless many are equal
        for (std::size_t b = 0; b < maxima_.size(); ++b) {
            if (!(maxima_[b] > threshold)) continue;
            const std::size_t first = b * kBlock;
            for_each_above(logits.subspan(first, std::min(kBlock, logits.size() - first)), threshold, [&](std::size_t i, float logit) { add(first + i, logit); });
        }
        if (candidates_.size() > k) {
            std::nth_element(candidates_.begin(), candidates_.begin() + static_cast<std::ptrdiff_t>(k), candidates_.end(), better);
            candidates_.resize(k);
        }
    } else {
        for_each_above(logits, threshold, [&](std::size_t i, float logit) {
            if (candidates_.size() == k) {   // a heap with the worst of the best on top
                std::pop_heap(candidates_.begin(), candidates_.end(), better);
                candidates_.pop_back();
            }
            add(i, logit);
            std::push_heap(candidates_.begin(), candidates_.end(), better);
            if (candidates_.size() == k) threshold = candidates_.front().logit;   // later equals have higher ids: not better
        });
    }
    std::sort(candidates_.begin(), candidates_.end(), better);
}

/// p = e^(scale * (logit - greatest logit)).
void Chain::weigh(double scale) {
    const double greatest = greatest_logit();
    for (Candidate& c : candidates_) c.p = exp_negative((c.logit - greatest) * scale);
}

double Chain::greatest_logit() const {
    float greatest = -kInfinity;
    for (const Candidate& c : candidates_) greatest = std::max(greatest, c.logit);
    return greatest;
}

double Chain::total_weight() const {
    double sum = 0;
    for (const Candidate& c : candidates_) sum += c.p;
    return sum;
}

/// Keeps the fewest candidates, least key first (the better one first among equals), whose weights make `enough` true.
/// No sort of the vocabulary: weights are summed by bins of the key, and only the bin where the sum gets there is
/// sorted. The kept ones stay in their order, so no result depends on how a library sorts.
template <class Key, class Enough>
void Chain::keep_least(Key key, Enough enough) {
    constexpr std::size_t n_bins = 1024;
    constexpr double bins_per_unit = 32;  // of logit: a step of 3 % in weight, 32 units to e^-32 in all
    const auto bin = [&](const Candidate& c) {
        return static_cast<std::size_t>(std::min(key(c) * bins_per_unit, double{n_bins - 1}));
    };
    std::array<double, n_bins> weights{};
    for (const Candidate& c : candidates_) weights[bin(c)] += c.p;
    double held = 0;
    std::size_t edge = 0;
    while (edge < n_bins - 1 && !enough(held + weights[edge])) held += weights[edge++];

    boundary_.clear();
    for (std::size_t i = 0; i < candidates_.size(); ++i) {
        if (bin(candidates_[i]) == edge) boundary_.push_back(static_cast<std::uint32_t>(i));
    }
    const auto before = [&](const Candidate& a, const Candidate& b) {
        const double ka = key(a), kb = key(b);
        return ka != kb ? ka < kb : better(a, b);
    };
    std::sort(boundary_.begin(), boundary_.end(),
              [&](std::uint32_t a, std::uint32_t b) { return before(candidates_[a], candidates_[b]); });
    for (const std::uint32_t i : boundary_) {
        held += candidates_[i].p;
        if (!enough(held)) continue;
        const Candidate last = candidates_[i];
        std::erase_if(candidates_, [&](const Candidate& c) { return before(last, c); });
        return;
    }
}

/// Locally typical sampling (arXiv 2202.00666): keeps the tokens whose surprise -log p is closest to its expectation,
/// until they hold more than typical_p. As log p = logit - constant, the distance is |logit - expected logit|.
void Chain::cut_typical() {
    weigh(1);
    const double total = total_weight(), goal = options_.typical_p * total;
    double expected = 0;
    for (const Candidate& c : candidates_) expected += c.p * c.logit;
    expected /= total;
    keep_least([&](const Candidate& c) { return std::abs(c.logit - expected); },
               [&](double held) { return held > goal; });
}

/// Nucleus sampling (arXiv 1904.09751): the fewest best tokens that hold at least top_p.
void Chain::cut_top_p() {
    const double goal = options_.top_p * total_weight();
    const double greatest = greatest_logit();
    keep_least([&](const Candidate& c) { return greatest - c.logit; }, [&](double held) { return held >= goal; });
}

/// Min-p (arXiv 2407.01082): tokens at least min_p times as likely as the best.
void Chain::cut_min_p() {
    const double least = options_.min_p;  // the best one's weight is 1
    std::erase_if(candidates_, [&](const Candidate& c) { return c.p < least; });
}

Result<std::span<const Candidate>> Chain::distribution(std::span<const float> logits) {
    if (logits.size() != n_vocab_) {
        return Error{Errc::invalid_argument,
                     cat("sampler: ", logits.size(), " logits given; the vocabulary has ", n_vocab_)};
    }
    collect(adjust(logits));
    if (candidates_.empty()) {
        return Error{Errc::invalid_argument,
                     cat("sampler: each of the ", n_vocab_, " logits is NaN or -infinity",
                         adjusted_.empty() ? "" : " after logit_bias and penalties", "; no token can be chosen")};
    }
    if (candidates_.size() == 1) {
        candidates_[0].p = 1;
        return std::span<const Candidate>(candidates_);
    }
    if (options_.typical_p < 1) cut_typical();
    weigh(1);
    if (options_.top_p < 1) cut_top_p();
    if (options_.min_p > 0) cut_min_p();
    if (options_.temperature != 1) weigh(1 / double{options_.temperature});
    const double total = total_weight();
    for (Candidate& c : candidates_) c.p /= total;
    return std::span<const Candidate>(candidates_);
}

/// One of the candidates, whose p sum to `total`.
Token Chain::draw(double total) {
    const double u = random_.uniform() * total;
    double below = 0;
    for (const Candidate& c : candidates_) {
        below += c.p;
        if (u < below) return c.id;
    }
    // Rounding left the sum below u: the likeliest token, rather than whichever came last.
    return std::min_element(candidates_.begin(), candidates_.end(), [](const auto& a, const auto& b) { return a.p > b.p; })->id;
}

Result<Token> Chain::sample(std::span<const float> logits) {
    const auto d = distribution(logits);
    if (!d) return d.error();
    return d->size() == 1 ? d->front().id : draw(1);
}

Result<Token> Chain::verify(std::span<const float> logits, Token guess, std::span<const Candidate> drawn_from) {
    const auto d = distribution(logits);
    if (!d) return d.error();
    const auto p_of = [guess](std::span<const Candidate> from) {
        const auto at = std::find_if(from.begin(), from.end(), [&](const Candidate& c) { return c.id == guess; });
        return at == from.end() ? 0 : at->p;
    };
    const double p = p_of(*d), q = p_of(drawn_from);
    if (p >= q || random_.uniform() * q < p) return guess;
    // What the guess's distribution has too little of.
    for (const Candidate& c : drawn_from) drawn_from_[static_cast<std::size_t>(c.id)] = c.p;
    double rest = 0;
    for (Candidate& c : candidates_) rest += c.p = std::max(0.0, c.p - drawn_from_[static_cast<std::size_t>(c.id)]);
    for (const Candidate& c : drawn_from) drawn_from_[static_cast<std::size_t>(c.id)] = 0;
    return draw(rest);
}

}  // namespace quern::engine
