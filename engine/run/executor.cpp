// SPDX-License-Identifier: Apache-2.0
#include "engine/run/executor.h"

#include <algorithm>
#include <ctime>

#include "engine/core/clock.h"

namespace quern::engine {
namespace {

constexpr std::uint32_t kBuckets[] = {1, 8, 32, 128, 512, 1024, 2048, 4096};
constexpr std::uint32_t kSmallestContext = 256;   // what allow_smaller_context never goes below

}  // namespace

KvPlan::KvPlan(const KvShape& model, kernels::KvFormat format, std::uint32_t tail, std::uint32_t n_sequences, std::uint32_t n_ctx)
    : shape(model) {
    shape.format = format;
    n_tokens = n_ctx;
    if (!kernels::is_quantized(format)) return;
    shape.page_tokens = kernels::kKvGroup;
    exact = model;
    exact.format = kernels::KvFormat::F16;
    tiers = KvTiers::make(tail, n_ctx);
    n_tokens = std::max(tiers.quantized(n_ctx), shape.page_tokens);   // a pool has a page
    n_exact_tokens = std::uint64_t{KvTiers::kSink + tiers.ring_tokens} * n_sequences;
}

std::uint64_t KvPlan::bytes() const {
    const auto of = [](const KvShape& s, std::uint64_t n) { return (n + s.page_tokens - 1) / s.page_tokens * s.page_bytes(); };
    return of(shape, n_tokens) + (tiers.on ? of(exact, n_exact_tokens) : 0);
}

Status Executor::settle_memory(const gguf::File& file, const ExecutorOptions& o) {
    KvShape shape;
    shape.head_dim = hparams_.head_dim;
    shape.n_head_kv = hparams_.n_head_kv;
    n_ctx_ = o.n_ctx ? o.n_ctx : hparams_.n_ctx_train;

    CpuBackendArgs args;
    args.file = &file; args.hparams = &hparams_; args.weights = &weights_; args.plan = &plan_;
    args.pool = pool_.get(); args.table = table_; args.max_bucket = max_batch_; args.pack = o.pack; args.pack_cache = o.pack_cache;
    args.numa = o.numa;
    const auto need = [&](std::uint32_t n_ctx) {
        const KvPlan plan(shape, o.kv_format, o.kv_tail, o.kv_sequences, n_ctx);
        args.n_ctx = n_ctx;
        args.tiers = plan.tiers;
        return std::pair(CpuBackend(args).estimate(), plan.bytes());
    };
    auto [fixed, kv] = need(n_ctx_);
    const auto total = [&] { return fixed.weights_packed + fixed.weights_mapped + fixed.buffers + kv; };
    if (o.memory_limit && total() > o.memory_limit) {
        const std::string numbers = "weights " + format_bytes(fixed.weights_packed + fixed.weights_mapped) + ", KV cache " + format_bytes(kv) + " for " + std::to_string(n_ctx_) +
                                    " tokens, buffers " + format_bytes(fixed.buffers) + ": " + format_bytes(total()) + " in all, the limit is " + format_bytes(o.memory_limit);
        while (o.allow_smaller_context && total() > o.memory_limit && n_ctx_ > kSmallestContext) {
            n_ctx_ = std::max(kSmallestContext, n_ctx_ / 16 * 15 / 16 * 16);
            std::tie(fixed, kv) = need(n_ctx_);
        }
        if (total() > o.memory_limit)
            return Error{Errc::out_of_memory, file.path() + " does not fit the memory limit (" + numbers + "); raise the limit, lower the context" +
                                                  (o.allow_smaller_context ? "" : " or allow a smaller one") + ", or take a smaller quantization"};
        if (o.log) o.log("context shrunk to " + std::to_string(n_ctx_) + " tokens to stay within the memory limit (" + numbers + ")");
    }
    const KvPlan plan(shape, o.kv_format, o.kv_tail, o.kv_sequences, n_ctx_);
    auto pages = PagePool::create(plan.shape, plan.n_tokens);
    if (!pages) return std::move(pages).error();
    pages_ = std::move(*pages);
    o.numa.interleave(pages_->memory());   // whoever is free works on a head: none has a node of its own
    // With a tail, the exact positions before a shared text's end are not kept; without one, there are none at a page's end.
    const bool keep = o.prefix_cache && plan.tiers.tail == 0;
    if (keep)
        if (auto s = pages_->keep_prefixes(); !s) return s;
    if (plan.tiers.on) {
        auto exact = PagePool::create(plan.exact, plan.n_exact_tokens);
        if (!exact) return std::move(exact).error();
        exact_pages_ = std::move(*exact);
        exact_pages_each_ = exact_pages_->n_pages() / o.kv_sequences;
        o.numa.interleave(exact_pages_->memory());
        if (keep)   // the page of the first positions
            if (auto s = exact_pages_->keep_prefixes(); !s) return s;
    }
    args.n_ctx = n_ctx_;
    args.pages = pages_.get();
    args.exact = exact_pages_.get();
    args.tiers = tiers_ = plan.tiers;
    backend_ = std::make_unique<CpuBackend>(args);
    return {};
}

Result<std::unique_ptr<Executor>> Executor::create(const gguf::File& file, const ExecutorOptions& o) {
    std::unique_ptr<Executor> e(new Executor);
    auto table = kernels::select_table(o.isa, kernels::cpu_features());
    if (!table) return std::move(table).error();
    e->table_ = *table;
    auto hparams = read_hparams(file);
    if (!hparams) return std::move(hparams).error();
    e->hparams_ = std::move(*hparams);
    auto weights = check_weights(file, e->hparams_);
    if (!weights) return std::move(weights).error();
    e->weights_ = std::move(*weights);
    e->plan_ = build_plan(e->hparams_, e->weights_);
    auto pool = ThreadPool::create(std::max(o.n_threads, o.n_threads_batch), o.places);
    if (!pool) return std::move(pool).error();
    e->pool_ = std::move(*pool);
    e->max_batch_ = e->n_batch_ = o.n_batch;
    if (auto s = e->settle_memory(file, o); !s) return std::move(s).error();
    e->backend_->set_threads(o.n_threads, o.n_threads_batch);
    if (auto s = e->backend_->prepare(o.progress); !s) return std::move(s).error();
    const KvShape& kv = e->pages_->shape();
    e->cost_ = PlanCost(e->plan_, e->weights_, static_cast<double>(kv.page_bytes()) / kv.page_tokens);
    for (const std::uint32_t bucket : kBuckets) {
        auto x = e->backend_->compile(std::min(bucket, o.n_batch));
        if (!x) return std::move(x).error();
        e->executables_.push_back(std::move(*x));
        if (bucket >= o.n_batch) break;
    }
    return e;
}

void Executor::set_threads(std::uint32_t decode, std::uint32_t prefill) {
    std::lock_guard lock(run_mutex_);
    backend_->set_threads(std::clamp(decode, 1u, pool_->size()), std::clamp(prefill, 1u, pool_->size()));
}

Result<Executable*> Executor::find_executable(std::size_t n_tokens) {
    for (auto& e : executables_)
        if (e->bucket() >= n_tokens) return e.get();
    return Error{Errc::internal, "a batch of " + std::to_string(n_tokens) + " tokens is larger than n_batch " + std::to_string(max_batch_)};
}

Status Executor::run(const RunArgs& args) {
    std::lock_guard lock(run_mutex_);
    auto e = find_executable(args.tokens.size());
    if (!e) return std::move(e).error();
    Stopwatch clock;
    const std::clock_t cpu = std::clock();
    Status s = backend_->run(**e, args);
    if (s) count(args, clock.seconds(), static_cast<double>(std::clock() - cpu) / CLOCKS_PER_SEC);
    return s;
}

void Executor::count(const RunArgs& args, double seconds, double cpu_seconds) {
    const std::size_t n = args.tokens.size();
    double cached = 0;
    for (const SeqChunk& c : args.chunks) {
        const auto seen = static_cast<std::uint32_t>(c.pos0) + c.n_tokens;
        cached += hparams_.window ? std::min(seen, hparams_.window) : seen;
    }
    const StepWork work = cost_.of(static_cast<double>(n), static_cast<double>(args.outputs.size()), cached);
    std::lock_guard lock(totals_mutex_);
    RunMetrics& to = n == args.chunks.size() || n <= kBuckets[1] ? totals_.decode : totals_.prefill;
    ++to.n_runs;
    to.n_tokens += n;
    to.seconds += seconds;
    to.cpu_seconds += cpu_seconds;
    to.bytes += work.bytes;
    to.operations += work.ops();
}

RunTotals Executor::totals() const {
    std::lock_guard lock(totals_mutex_);
    return totals_;
}

Status Executor::probe(const RunArgs& args, std::uint32_t threads, LayerRange layers) {
    std::lock_guard lock(run_mutex_);
    auto e = find_executable(args.tokens.size());
    if (!e) return std::move(e).error();
    backend_->probe(**e, args, std::clamp(threads, 1u, pool_->size()), layers);
    return {};
}

}  // namespace quern::engine
