// SPDX-License-Identifier: Apache-2.0
#include "engine/tune/search.h"

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

namespace quern::engine {
namespace {

// After each round of measurements, what is slower than the best by more than this share is dropped. Noise only ever
// adds time, so the least of several is compared, and one bad measurement does not drop a candidate by itself: the first
// round drops only what no noise explains.
constexpr double kMargins[] = {3.0, 0.25, 0.12, 0.08, 0.05};
// What the first candidate may be slower: less is within noise, and a choice that depends on noise surprises people.
constexpr double kTie = 0.02;

constexpr double kNever = std::numeric_limits<double>::infinity();

/// The cheapest of `values`; the first where nothing could be measured. cost: seconds, kNever where there is no time.
std::uint32_t pick(const std::vector<std::uint32_t>& values, const std::function<double(std::uint32_t)>& cost) {
    if (values.size() == 1) return values.front();
    std::vector<double> least(values.size(), kNever);
    std::vector<bool> alive(values.size(), true);
    for (const double margin : kMargins) {
        for (std::size_t i = 0; i < values.size(); ++i) {
            if (alive[i]) least[i] = std::min(least[i], cost(values[i]));
        }
        const double best = *std::min_element(least.begin(), least.end());
        for (std::size_t i = 0; i < values.size(); ++i) alive[i] = alive[i] && least[i] <= best * (1 + margin);
        if (std::count(alive.begin(), alive.end(), true) < 2) break;
    }
    return values[static_cast<std::size_t>(std::min_element(least.begin(), least.end()) - least.begin())];
}

/// The least that each point has cost so far.
class Costs {
public:
    double note(std::uint32_t threads, std::uint32_t batch, std::optional<double> seconds) {
        double& least = least_.try_emplace({threads, batch}, kNever).first->second;
        least = std::min(least, seconds.value_or(kNever));
        return seconds.value_or(kNever);
    }
    /// Whether a is as good as b, but for noise.
    bool ties(std::pair<std::uint32_t, std::uint32_t> a, std::pair<std::uint32_t, std::uint32_t> b) const {
        const auto x = least_.find(a), y = least_.find(b);
        return y == least_.end() || (x != least_.end() && x->second <= y->second * (1 + kTie));
    }

private:
    std::map<std::pair<std::uint32_t, std::uint32_t>, double> least_;
};

/// n and fractions of it, descending: all counts of a small machine, four of a large one.
void add_counts(std::vector<std::uint32_t>& out, std::uint32_t n) {
    const auto add = [&](std::uint32_t c) {
        if (c > 0 && std::find(out.begin(), out.end(), c) == out.end()) out.push_back(c);
    };
    if (n <= 4) {
        for (; n > 0; --n) add(n);
    } else {
        for (const std::uint32_t quarters : {4u, 3u, 2u, 1u}) add(n * quarters / 4);
    }
}

}  // namespace

bool TuneCandidates::contain(const TuneChoice& c) const {
    const auto has = [](const auto& list, std::uint32_t v) { return std::find(list.begin(), list.end(), v) != list.end(); };
    return has(decode, c.n_threads) && has(prefill, c.n_threads_batch) && has(batch, c.n_batch);
}

TuneCandidates TuneCandidates::judged_on(std::uint32_t n_tokens) const {
    TuneCandidates out = *this;
    out.batch.erase(std::remove_if(out.batch.begin() + 1, out.batch.end(), [&](std::uint32_t b) { return b >= n_tokens; }),
                    out.batch.end());
    return out;
}

TuneCandidates tune_candidates(const Topology& t, std::uint32_t n_batch) {
    constexpr std::uint32_t kLeastBatch = 128;  // below, a step has too little arithmetic for each weight it reads
    constexpr std::size_t kMostBatches = 4;
    TuneCandidates out;
    add_counts(out.decode, t.n_threads);
    add_counts(out.prefill, t.n_threads_batch);
    if (t.n_threads != t.n_threads_batch) {
        out.decode.push_back(t.n_threads_batch);
        if (std::find(out.prefill.begin(), out.prefill.end(), t.n_threads) == out.prefill.end())
            out.prefill.push_back(t.n_threads);
    }
    do {
        out.batch.push_back(n_batch);
        n_batch /= 2;
    } while (n_batch >= kLeastBatch && out.batch.size() < kMostBatches);
    return out;
}

TuneChoice tune_search(const TuneCandidates& c, const TuneCosts& costs) {
    TuneChoice out = c.first();
    Costs decode, prefill;
    out.n_threads = pick(c.decode, [&](std::uint32_t n) { return decode.note(n, 1, costs.decode(n)); });
    if (decode.ties({c.decode.front(), 1}, {out.n_threads, 1})) out.n_threads = c.decode.front();
    // The batch first: in very large steps nothing shows what threads cost beside their work.
    const auto cost = [&](std::uint32_t threads, std::uint32_t batch) {
        return prefill.note(threads, batch, costs.prefill(threads, batch));
    };
    const auto by_batch = [&](std::uint32_t n) { return cost(out.n_threads_batch, n); };
    out.n_batch = pick(c.batch, by_batch);
    out.n_threads_batch = pick(c.prefill, [&](std::uint32_t n) { return cost(n, out.n_batch); });
    if (out.n_threads_batch != c.prefill.front()) out.n_batch = pick(c.batch, by_batch);
    if (prefill.ties({c.prefill.front(), c.batch.front()}, {out.n_threads_batch, out.n_batch})) {
        out.n_threads_batch = c.prefill.front();
        out.n_batch = c.batch.front();
    }
    return out;
}

}  // namespace quern::engine
