// SPDX-License-Identifier: Apache-2.0
// Thread counts and batch sizes by measurement: what depends on what, and where it is kept.
#include <algorithm>
#include <ctime>

#include "engine/api/model_impl.h"
#include "engine/core/clock.h"
#include "engine/core/topology.h"
#include "engine/tune/measure.h"
#include "formats/text.h"

namespace quern {
namespace {

constexpr double kSeconds = 1.5;  // the measurement in progress may end a little later
// What other programs may use of the CPUs meanwhile. A choice made beside a compiler is wrong for good once it is kept.
constexpr double kMostOthers = 0.1, kTicks = 0.03;

/// Everything that the best choice depends on, a line each.
std::string make_key(const ModelInfo& i, const engine::Topology& t, const engine::KvShape& kv, const engine::Hparams& h, bool pack) {
    std::string cpus;
    for (const engine::Cpu& c : t.cpus) cpus += cat(" ", c.id);
    return cat("quern ", QUERN_VERSION, "\ncpu ", i.cpu, "\nallowed", cpus, "\ncores ", t.n_cores, " slow ", t.n_efficiency, " nodes ",
               t.nodes.size(), " threads ", t.n_threads, "+", t.n_threads_batch, "\nkernels ", i.isa, "\nmodel ",
               i.architecture, " ", i.weight_type, " embd ", i.n_embd, " layers ", i.n_layer, " ff ", h.n_ff.empty() ? 0u : h.n_ff[0],
               " heads ", i.n_head, "/", i.n_head_kv, " vocab ", i.n_vocab, " bytes ", i.file_size, " kv ", kv.element_bytes(),
               pack ? "" : " not packed", "\nlargest batch ", i.n_batch);
}

}  // namespace

Result<TuneResult> Model::Impl::measure(bool unasked) const {
    engine::Stopwatch clock;
    const std::clock_t own = std::clock();
    const double busy = engine::busy_seconds(cpus);
    auto choice = engine::tune(*executor, tune_candidates, kSeconds);
    if (!choice) return std::move(choice).error();
    TuneResult out;
    out.seconds = clock.seconds();
    const double others = engine::busy_seconds(cpus) - busy - static_cast<double>(std::clock() - own) / CLOCKS_PER_SEC;
    out.disturbed = others > std::max(kTicks, kMostOthers * out.seconds * static_cast<double>(cpus.size()));
    if (!out.disturbed || !unasked) {
        use(*choice);
        if (tune_cache.store(tune_key, *choice)) out.kept_in = tune_cache.path(tune_key);
    }
    out.n_threads = static_cast<int>(executor->threads());
    out.n_threads_batch = static_cast<int>(executor->threads_batch());
    out.n_batch = executor->n_batch();
    return out;
}

void Model::Impl::use(const engine::TuneChoice& c) const {
    executor->set_threads(c.n_threads, c.n_threads_batch);
    executor->set_batch(c.n_batch);
}

Status Model::Impl::settle_tuning(const ModelOptions& o, const engine::Topology& topology, const std::string& cache_dir) {
    cpus = topology.cpus;
    tune_candidates = engine::tune_candidates(topology, info.n_batch);
    tune_cache = engine::TuneCache(cache_dir);
    tune_key = make_key(info, topology, executor->pages().shape(), executor->hparams(), o.pack);
    if (o.tune == Tune::off) return {};
    const auto kept = o.tune == Tune::force ? std::nullopt : tune_cache.load(tune_key);
    if (kept && tune_candidates.contain(*kept)) {
        use(*kept);
        info.tuned = true;
    } else if (o.tune != Tune::cached) {
        const bool unasked = o.tune == Tune::automatic;
        const auto found = measure(unasked);
        if (!found) return found.error();
        info.tuned = !(found->disturbed && unasked);
    }
    info.n_threads = static_cast<int>(executor->threads());
    info.n_threads_batch = static_cast<int>(executor->threads_batch());
    info.n_batch = executor->n_batch();
    return {};
}

Result<TuneResult> Model::tune(bool unasked) const {
    if (impl_->tune_candidates.decode.empty())
        return Error{Errc::invalid_argument, "this model was loaded with a thread count of the caller's choice; load it with n_threads 0 to have it chosen"};
    if (unasked && !impl_->tune_cache.writable()) return TuneResult{};
    return impl_->measure(unasked);
}

}  // namespace quern
