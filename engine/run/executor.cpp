// SPDX-License-Identifier: Apache-2.0
#include "engine/run/executor.h"

#include <algorithm>
#include <ctime>

#include "engine/core/clock.h"

namespace quern::engine {
namespace {

constexpr std::uint32_t kSmallestContext = 256;   // what allow_smaller_context never goes below

}  // namespace

KvPlan::KvPlan(const KvShape& model, kernels::KvFormat format, std::uint32_t tail, std::uint32_t n_sequences, std::uint32_t n_ctx, std::int32_t n_spare_rings)
    : shape(model) {
    shape.format = format;
    n_tokens = n_ctx;
    if (!kernels::is_quantized(format)) return;
    shape.page_tokens = kernels::kKvGroup;
    exact = model;
    exact.format = kernels::KvFormat::F16;
    tiers = KvTiers::make(tail, n_ctx);
    n_tokens = std::max(tiers.quantized(n_ctx), shape.page_tokens);   // a pool has a page
    const std::uint32_t spare = n_spare_rings >= 0 ? static_cast<std::uint32_t>(n_spare_rings) : std::min(KvTiers::kSpareRings, n_sequences - 1);
    if (tail <= KvTiers::kMostShared) n_spare_tokens = std::uint64_t{tiers.ring_tokens} * spare;
    n_exact_tokens = std::uint64_t{KvTiers::kSink + tiers.ring_tokens} * n_sequences + n_spare_tokens;
}

std::uint64_t KvPlan::bytes(std::uint32_t n_layers) const {
    const auto of = [&](const KvShape& s, std::uint64_t n) { return (n + s.page_tokens - 1) / s.page_tokens * s.page_bytes(n_layers); };
    return of(shape, n_tokens) + (tiers.on ? of(exact, n_exact_tokens) : 0);
}

KvShape Executor::kv_shape() const {
    KvShape shape;
    shape.head_dim = hparams_.head_dim;
    shape.n_head_kv = hparams_.n_head_kv;
    return shape;
}

KvPlan Executor::kv_plan(const ExecutorOptions& o, std::uint32_t n_ctx) const {
    return {kv_shape(), o.kv_format, o.kv_tail, o.kv_sequences, n_ctx, o.prefix_cache ? o.kv_spare_tails : 0};
}

/// Which layers go to a device; plan_ becomes what is left for the CPU.
Status Executor::settle_offload(const ExecutorOptions& o) {
    const KvPlan kv = kv_plan(o, n_ctx_);
    auto offload = choose_offload(o.offload, hparams_, weights_, kv, VulkanBackend::buffer_bytes(hparams_, kv, n_ctx_, max_batch_));
    if (!offload) return std::move(offload).error();
    offload_ = std::move(*offload);
    if (o.log)
        for (const std::string& note : offload_.notes) o.log(note);
    if (!offload_.device) return {};
    PlanCut cut = cut_plan(plan_, offload_.first_layer);
    plan_ = std::move(cut.head);
    device_plan_ = std::move(cut.tail);
    return {};
}

/// Uploads the device's layers and gives the page pools their places there.
Status Executor::prepare_device(const gguf::File& file, const ExecutorOptions& o) {
    VulkanBackendArgs args;
    args.device = offload_.device.get();
    args.file = &file; args.hparams = &hparams_; args.weights = &weights_; args.plan = &device_plan_; args.first_layer = offload_.first_layer;
    args.kv = pages_->shape(); args.n_pages = pages_->n_pages();
    args.tiers = tiers_;
    if (exact_pages_) {
        args.exact = exact_pages_->shape();
        args.n_exact_pages = exact_pages_->n_pages();
    }
    args.pool = pool_.get(); args.table = table_; args.n_ctx = n_ctx_; args.max_bucket = max_batch_;
    device_backend_ = std::make_unique<VulkanBackend>(args);
    const auto has = [&](std::uint32_t bit) { return offload_.device->has(static_cast<vulkan::Feature>(1u << bit)); };
    std::vector<bool> had;
    for (std::uint32_t i = 0; !vulkan::feature_name(i).empty(); ++i) had.push_back(has(i));
    if (auto s = device_backend_->prepare(o.progress); !s) return s;
    for (std::uint32_t i = 0; i < had.size(); ++i)
        if (had[i] && !has(i)) {
            offload_.notes.push_back(std::string(vulkan::feature_name(i)) + " of the device is not used: a kernel gave a wrong result with it");
            if (o.log) o.log(offload_.notes.back());
        }
    pages_->attach(device_backend_->pages());
    if (exact_pages_) exact_pages_->attach(device_backend_->exact_pages());
    return {};
}

Status Executor::settle_memory(const gguf::File& file, const ExecutorOptions& o) {
    CpuBackendArgs args;
    args.file = &file; args.hparams = &hparams_; args.weights = &weights_; args.plan = &plan_;
    args.n_layers = offload_.first_layer;
    args.pool = pool_.get(); args.table = table_; args.max_bucket = max_batch_; args.pack = o.pack; args.pack_cache = o.pack_cache;
    args.numa = o.numa;
    const auto need = [&](std::uint32_t n_ctx) {
        const KvPlan plan = kv_plan(o, n_ctx);
        args.n_ctx = n_ctx;
        args.tiers = plan.tiers;
        return std::pair(CpuBackend(args).estimate(), plan.bytes(offload_.first_layer));
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
    const KvPlan plan = kv_plan(o, n_ctx_);
    tiers_ = plan.tiers;
    if (auto s = make_pages(plan, o); !s) return s;
    args.n_ctx = n_ctx_;
    args.pages = pages_.get();
    args.exact = exact_pages_.get();
    args.tiers = tiers_;
    backend_ = std::make_unique<CpuBackend>(args);
    return {};
}

Status Executor::make_pages(const KvPlan& plan, const ExecutorOptions& o) {
    auto pages = PagePool::create(plan.shape, plan.n_tokens, offload_.first_layer);
    if (!pages) return std::move(pages).error();
    pages_ = std::move(*pages);
    o.numa.interleave(pages_->memory());   // whoever is free works on a head: none has a node of its own
    const bool keep = o.prefix_cache && plan.tiers.tail <= KvTiers::kMostShared;
    if (keep)
        if (auto s = pages_->keep_prefixes(); !s) return s;
    if (!plan.tiers.on) return {};
    auto exact = PagePool::create(plan.exact, plan.n_exact_tokens, offload_.first_layer);
    if (!exact) return std::move(exact).error();
    exact_pages_ = std::move(*exact);
    exact_pages_each_ = (KvTiers::kSink + tiers_.ring_tokens) / KvTiers::kSink;
    exact_pages_->set_spare(static_cast<std::uint32_t>(plan.n_spare_tokens / KvTiers::kSink));
    o.numa.interleave(exact_pages_->memory());
    if (keep) return exact_pages_->keep_prefixes(tiers_.ring_tokens);   // a page is known by the tokens from its window on
    return {};
}

Result<std::unique_ptr<Executor>> Executor::without_device(const gguf::File& file, ExecutorOptions o, std::string why) {
    if (o.log) o.log(why);
    o.offload.n_layers = 0;
    auto e = create(file, o);
    if (e) (*e)->offload_.notes.push_back(std::move(why));
    return e;
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
    e->cost_ = PlanCost(e->plan_, e->weights_);
    e->n_ctx_ = o.n_ctx ? o.n_ctx : e->hparams_.n_ctx_train;
    if (auto s = e->settle_offload(o); !s) return std::move(s).error();
    if (auto s = e->settle_memory(file, o); !s) return std::move(s).error();
    e->backend_->set_threads(o.n_threads, o.n_threads_batch);
    if (auto s = e->backend_->prepare(o.progress); !s) return std::move(s).error();
    if (e->offload_.device)
        if (auto s = e->prepare_device(file, o); !s) {
            if (o.offload.n_layers != OffloadOptions::kAuto || s.error().code == Errc::cancelled) return std::move(s).error();
            e.reset();
            return without_device(file, o, "everything runs on the CPU: " + s.error().message);
        }
    for (const std::uint32_t bucket : kBuckets) {
        Pair pair;
        auto x = e->backend_->compile(std::min(bucket, o.n_batch));
        if (!x) return std::move(x).error();
        pair.cpu = std::move(*x);
        if (e->device_backend_) {
            auto d = e->device_backend_->compile(std::min(bucket, o.n_batch));
            if (!d) return std::move(d).error();
            pair.device = std::move(*d);
        }
        e->executables_.push_back(std::move(pair));
        if (bucket >= o.n_batch) break;
    }
    return e;
}

void Executor::set_threads(std::uint32_t decode, std::uint32_t prefill) {
    std::lock_guard lock(run_mutex_);
    backend_->set_threads(std::clamp(decode, 1u, pool_->size()), std::clamp(prefill, 1u, pool_->size()));
}

Result<const Executor::Pair*> Executor::find_executable(std::size_t n_tokens) {
    for (const Pair& e : executables_)
        if (e.cpu->bucket() >= n_tokens) return &e;
    return Error{Errc::internal, "a batch of " + std::to_string(n_tokens) + " tokens is larger than n_batch " + std::to_string(max_batch_)};
}

Status Executor::run(const RunArgs& args) {
    std::lock_guard lock(run_mutex_);
    auto e = find_executable(args.tokens.size());
    if (!e) return std::move(e).error();
    Stopwatch clock;
    const std::clock_t cpu = std::clock();
    RunArgs crossing = args;
    if (device_backend_) crossing.crossing = device_backend_->crossing();
    Status s = backend_->run(*(*e)->cpu, crossing);
    if (s && device_backend_) s = device_backend_->run(*(*e)->device, crossing);
    if (s) count(args, clock.seconds(), static_cast<double>(std::clock() - cpu) / CLOCKS_PER_SEC, device_backend_ ? device_backend_->run_seconds() : 0);
    return s;
}

void Executor::count(const RunArgs& args, double seconds, double cpu_seconds, double device_seconds) {
    const std::size_t n = args.tokens.size();
    double cached = 0;
    for (const SeqChunk& c : args.chunks) cached += kv_bytes(static_cast<std::uint32_t>(c.pos0) + c.n_tokens);
    const StepWork work = cost_.of(static_cast<double>(n), static_cast<double>(args.outputs.size()), cached);
    std::lock_guard lock(totals_mutex_);
    RunMetrics& to = n == args.chunks.size() || n <= kBuckets[1] ? totals_.decode : totals_.prefill;
    ++to.n_runs;
    to.n_tokens += n;
    to.seconds += seconds;
    to.cpu_seconds += cpu_seconds;
    to.device_seconds += device_seconds;
    to.bytes += work.bytes;
    to.operations += work.ops();
}

double Executor::kv_bytes(std::uint32_t n_tokens) const {
    const auto of = [](const PagePool& p, std::uint32_t n) { return static_cast<double>(n) * static_cast<double>(p.shape().page_bytes()) / p.shape().page_tokens; };
    const std::uint32_t seen = hparams_.window ? std::min(n_tokens, hparams_.window) : n_tokens;
    if (!tiers_.on) return of(*pages_, seen);
    const std::uint32_t first = std::max(n_tokens - seen, KvTiers::kSink), end = tiers_.quantized(n_tokens);
    const std::uint32_t quantized = end > first ? end - first : 0;
    return of(*pages_, quantized) + of(*exact_pages_, seen - quantized);
}

RunTotals Executor::totals() const {
    std::lock_guard lock(totals_mutex_);
    return totals_;
}

Status Executor::probe(const RunArgs& args, std::uint32_t threads, LayerRange layers) {
    std::lock_guard lock(run_mutex_);
    auto e = find_executable(args.tokens.size());
    if (!e) return std::move(e).error();
    backend_->probe(*(*e)->cpu, args, std::clamp(threads, 1u, pool_->size()), layers);
    return {};
}

}  // namespace quern::engine
