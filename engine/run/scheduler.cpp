// SPDX-License-Identifier: Apache-2.0
#include "engine/run/scheduler.h"

#include <algorithm>
#include <limits>
#include <tuple>
#include <utility>

namespace quern::engine {
namespace {

bool before(const SchedulerEntry& a, const SchedulerEntry& b) {
    return a.priority != b.priority ? a.priority > b.priority : a.order < b.order;
}

bool admitted_before(const SchedulerEntry& a, const SchedulerEntry& b) {
    const auto key = [](const SchedulerEntry& e) {
        return std::tuple(-std::int64_t{e.priority}, e.n_ran_once == 0, e.client->second.served, e.order);
    };
    return key(a) < key(b);
}

}  // namespace

Scheduler::Scheduler(SchedulerLimits limits, Reuse reuse) : limits_(limits), reuse_(std::move(reuse)) {
    for (auto* list : {&running_, &step_.preempted}) list->reserve(limits_.max_running + 1);
    step_.slices.reserve(limits_.max_running + 1);
}

void Scheduler::add(SchedulerEntry& e, std::string_view client) {
    auto c = clients_.find(client);
    if (c == clients_.end()) c = clients_.try_emplace(std::string(client)).first;
    if (c->second.n_requests++ == 0) {
        // Nobody saves up shares by staying away.
        std::uint64_t least = std::numeric_limits<std::uint64_t>::max();
        for (const auto& [name, share] : clients_)
            if (share.n_requests > 0 && &share != &c->second) least = std::min(least, share.served);
        if (least != std::numeric_limits<std::uint64_t>::max()) c->second.served = std::max(c->second.served, least);
    }
    e.client = c;
    e.n_run = e.n_pages = e.n_ran_once = 0;
    e.running = false;
    waiting_.push_back(&e);
}

void Scheduler::remove(SchedulerEntry& e) {
    auto& list = e.running ? running_ : waiting_;
    list.erase(std::find(list.begin(), list.end(), &e));
    std::erase_if(step_.slices, [&](const Slice& s) { return s.entry == &e; });
    if (--e.client->second.n_requests == 0) forget_clients();
}

/// Drops the clients without requests that have no more than the least served of the others: add() would give them as
/// much anyway.
void Scheduler::forget_clients() {
    std::uint64_t least = std::numeric_limits<std::uint64_t>::max();
    for (const auto& [name, share] : clients_)
        if (share.n_requests > 0) least = std::min(least, share.served);
    std::erase_if(clients_, [&](const auto& c) { return c.second.n_requests == 0 && c.second.served <= least; });
}

const Scheduler::Step& Scheduler::plan(std::uint32_t n_free_pages, std::uint32_t n_free_rings) {
    step_.slices.clear();
    step_.preempted.clear();
    step_.stuck = nullptr;
    free_ = n_free_pages;
    rings_ = n_free_rings;
    budget_ = limits_.n_batch;
    n_staged_ = 0;
    preempt_for_priority();
    plan_decode();
    plan_prefill();
    admit();
    if (running_.empty()) step_.stuck = best_waiting();
    return step_;
}

void Scheduler::shorten(std::size_t slice, std::uint32_t n) {
    auto& [e, planned] = step_.slices[slice];
    const std::uint32_t once = std::max(e->n_run, e->n_ran_once);   // what take_slice() charged for lies behind it
    e->client->second.served -= std::max(once, e->n_run + planned) - std::max(once, e->n_run + n);
    planned = n;
}

void Scheduler::ran() {
    for (const Slice& s : step_.slices) {
        SchedulerEntry& e = *s.entry;
        e.n_run += s.n;
        e.n_ran_once = std::max(e.n_ran_once, e.n_run);
    }
    step_.slices.clear();
}

void Scheduler::preempt(SchedulerEntry& e) {
    running_.erase(std::find(running_.begin(), running_.end(), &e));
    std::erase_if(step_.slices, [&](const Slice& s) { return s.entry == &e; });
    e.running = false;
    e.n_run = e.n_pages = 0;
    waiting_.push_back(&e);
}

SchedulerEntry* Scheduler::best_waiting() const {
    const auto best =
        std::min_element(waiting_.begin(), waiting_.end(), [](auto* a, auto* b) { return admitted_before(*a, *b); });
    return best == waiting_.end() ? nullptr : *best;
}

std::uint32_t Scheduler::pages_to_admit(const SchedulerEntry& e, std::size_t n_running) const {
    // Alone it needs no reserve, which a sequence as long as the cache could never have.
    return n_running == 0 ? pages_for(e.n_tokens) : pages_for(e.n_tokens + 1) + static_cast<std::uint32_t>(n_running);
}

void Scheduler::preempt_last() {
    SchedulerEntry& e = *running_.back();
    free_ += e.n_pages;
    if (rings_ != kNoLimit) ++rings_;
    step_.preempted.push_back(&e);
    preempt(e);
}

/// Makes room for a waiting request among running ones of strictly lower priority, if that suffices.
void Scheduler::preempt_for_priority() {
    const SchedulerEntry* e = best_waiting();
    if (!e) return;
    std::size_t n = running_.size();
    for (std::uint32_t pages = free_;; pages += running_[n]->n_pages) {
        if (n < limits_.max_running && pages >= pages_to_admit(*e, n) && (rings_ > 0 || n < running_.size())) break;
        if (n == 0 || running_[n - 1]->priority >= e->priority) return;
        --n;
    }
    while (running_.size() > n) preempt_last();
}

void Scheduler::find_reusable(SchedulerEntry& e) {
    if (!reuse_) return;
    e.n_run = reuse_(e);
    e.n_ran_once = std::max(e.n_ran_once, e.n_run);
}

void Scheduler::take_slice(SchedulerEntry& e, std::uint32_t n) {
    const auto at = static_cast<std::int32_t>(e.n_run);
    if (const KvTiers& tiers = limits_.tiers; tiers.on && !tiers.fits_ring(at, n)) {
        if (n_staged_ == KvTiers::kStagedChunks)
            n = tiers.ring_tokens - static_cast<std::uint32_t>(at - tiers.window(at));
        else
            ++n_staged_;
    }
    step_.slices.push_back({&e, n});
    budget_ -= n;
    // Charged here rather than in ran(), so that who is admitted next in the same step sees it.
    if (e.n_run + n > e.n_ran_once) e.client->second.served += e.n_run + n - std::max(e.n_run, e.n_ran_once);
}

void Scheduler::plan_decode() {
    // Best first, so that those preempted on the way have no slice yet.
    for (std::size_t i = 0; i < running_.size(); ++i) {
        SchedulerEntry& e = *running_[i];
        if (e.n_tokens - e.n_run != 1) continue;
        const std::uint32_t need = pages_for(e.n_tokens);
        while (e.running && need > e.n_pages + free_) preempt_last();
        if (!e.running) return;  // it was the last one itself
        if (need > e.n_pages) {
            free_ -= need - e.n_pages;
            e.n_pages = need;
        }
        take_slice(e, 1);
    }
}

void Scheduler::plan_prefill() {
    if (!step_.slices.empty()) budget_ = std::min(budget_, limits_.max_prefill);
    for (SchedulerEntry* e : running_) {
        if (e->n_tokens - e->n_run == 1 || budget_ == 0) continue;
        find_reusable(*e);
        take_slice(*e, std::min(e->n_tokens - e->n_run, budget_));
    }
}

void Scheduler::admit() {
    while (budget_ > 0 && running_.size() < limits_.max_running) {
        SchedulerEntry* e = best_waiting();
        if (!e || rings_ == 0 || pages_to_admit(*e, running_.size()) > free_) return;
        waiting_.erase(std::find(waiting_.begin(), waiting_.end(), e));
        running_.insert(
            std::upper_bound(running_.begin(), running_.end(), e, [](auto* a, auto* b) { return before(*a, *b); }), e);
        e->running = true;
        e->n_pages = pages_for(e->n_tokens);
        free_ -= e->n_pages;
        if (rings_ != kNoLimit) --rings_;
        find_reusable(*e);
        take_slice(*e, std::min(e->n_tokens - e->n_run, budget_));
    }
}

}  // namespace quern::engine
