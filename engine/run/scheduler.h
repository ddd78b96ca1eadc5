// SPDX-License-Identifier: Apache-2.0
// Decides what one step of a batch runs. Pure: it counts tokens and pages, and knows neither a model nor a clock.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/kv/tiers.h"

namespace quern::engine {

struct SchedulerLimits {
    std::uint32_t n_batch = 512;     ///< tokens a step
    std::uint32_t max_running = 64;  ///< sequences that hold pages at a time; never more than n_batch
    std::uint32_t max_prefill =
        512;  ///< prompt tokens in a step that also decodes: bounds how long a decode step takes
    std::uint32_t page_tokens = 16;
    KvTiers tiers = {};  ///< if on: positions take pages, and chunks are as long, as it says
};

/// Tokens run for one client. Kept while it has requests, and after that until all others have had as much.
struct ClientShare {
    std::uint64_t served = 0;
    std::uint32_t n_requests = 0;
};

/// A request as the scheduler sees it; the owner keeps it in place from add() to remove().
struct SchedulerEntry {
    std::uint64_t order = 0;     // of arrival; no two alike
    std::int32_t priority = 0;   // larger goes first
    std::uint32_t n_tokens = 0;  // known: prompt and generated
    // The scheduler's own, for others to read.
    std::uint32_t n_run = 0;       // of these in the cache
    std::uint32_t n_pages = 0;     // held, or to be taken before the planned step
    std::uint32_t n_ran_once = 0;  // most that n_run has been: what lies below is recomputed, and charged to nobody
    bool running = false;
    std::map<std::string, ClientShare, std::less<>>::iterator client;
};

class Scheduler {
public:
    struct Slice {
        SchedulerEntry* entry;
        std::uint32_t n;  // tokens from entry->n_run on
    };
    struct Step {
        std::vector<Slice> slices;               // in the order of the batch
        std::vector<SchedulerEntry*> preempted;  // have lost their pages, and wait again
        /// Can never run as things are: nothing else runs, and it does not fit the free pages. Remove it.
        SchedulerEntry* stuck = nullptr;
    };

    /// Asked for a request that is admitted, and again before each further part of its prompt: how many of its tokens,
    /// and never all, the cache has. What it finds keeps; it is charged to nobody.
    using Reuse = std::function<std::uint32_t(SchedulerEntry&)>;
    static constexpr std::uint32_t kNoLimit = std::numeric_limits<std::uint32_t>::max();

    explicit Scheduler(SchedulerLimits limits, Reuse reuse = {});

    /// Puts a request among those waiting.
    void add(SchedulerEntry& entry, std::string_view client);
    /// Takes it out, wherever it is.
    void remove(SchedulerEntry& entry);

    /// The next step, given how many pages are free, and for how many more sequences there is an exact tier. First come
    /// the sequences that decode, one token each. Prompts fill the rest, up to max_prefill beside decoding ones; then
    /// waiting requests are admitted: by priority; of equals those that were preempted, then the client that was served
    /// least (virtual token counter, arXiv 2401.00588), then in order of arrival. The first of them that does not fit
    /// lets no other pass. Where pages run out, the last running one (lowest priority, youngest) is preempted. Valid
    /// until the next call. The owner gives back the pages of `preempted`, then takes those that the slices need.
    const Step& plan(std::uint32_t n_free_pages, std::uint32_t n_free_rings = kNoLimit);
    const Step& planned() const { return step_; }
    /// A slice of the planned step becomes shorter, for an owner that has less room for it.
    void shorten(std::size_t slice, std::uint32_t n);
    /// The planned step has been run.
    void ran();
    /// Back to those waiting, without pages: for an owner that could not take them.
    void preempt(SchedulerEntry& entry);

    std::span<SchedulerEntry* const> running() const { return running_; }  // best first
    std::span<SchedulerEntry* const> waiting() const { return waiting_; }  // in no order
    bool idle() const { return running_.empty() && waiting_.empty(); }
    std::uint32_t pages_for(std::uint32_t n_tokens) const { return limits_.tiers.pages_for(n_tokens, limits_.page_tokens); }
    /// From the next plan on. Those that run beyond max_running go on; nobody joins them.
    void set_limits(std::uint32_t max_running, std::uint32_t max_prefill) {
        limits_.max_running = max_running;
        limits_.max_prefill = max_prefill;
    }
    std::size_t n_clients() const { return clients_.size(); }

private:
    SchedulerEntry* best_waiting() const;
    /// Pages that must be free to admit it beside n_running others: its own with its next token, and one for each of
    /// them.
    std::uint32_t pages_to_admit(const SchedulerEntry& e, std::size_t n_running) const;
    void preempt_last();
    void preempt_for_priority();
    void plan_decode();
    void plan_prefill();
    void admit();
    /// Up to n of its next tokens.
    void take_slice(SchedulerEntry& e, std::uint32_t n);
    void find_reusable(SchedulerEntry& e);
    void forget_clients();

    SchedulerLimits limits_;
    Reuse reuse_;
    std::vector<SchedulerEntry*> running_, waiting_;
    std::map<std::string, ClientShare, std::less<>> clients_;
    Step step_;
    std::uint32_t free_ = 0, rings_ = 0, budget_ = 0;  // while planning: pages, exact tiers, tokens
    std::uint32_t n_staged_ = 0;                       // chunks that no ring takes
};

}  // namespace quern::engine
