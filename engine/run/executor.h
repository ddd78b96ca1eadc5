// SPDX-License-Identifier: Apache-2.0
// A loaded model ready to run: file, weights, backend, one executable a batch bucket, and the pages of the KV cache.
#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/backend/cpu.h"
#include "engine/backend/offload.h"
#include "engine/backend/vulkan.h"
#include "engine/kv/exact_ring.h"
#include "engine/plan/cost.h"
#include "quern/metrics.hpp"

namespace quern::engine {

struct ExecutorOptions {
    std::uint32_t n_threads = 1, n_threads_batch = 1;   // of decode, of prefill
    ThreadPlaces places;                   // empty: wherever the system likes
    Numa numa;
    std::string isa;
    std::uint64_t memory_limit = 0;
    std::uint32_t n_ctx = 0;
    bool allow_smaller_context = false;
    kernels::KvFormat kv_format = kernels::KvFormat::F16;
    bool prefix_cache = true;              // keep pages for sequences with the same beginning
    std::uint32_t kv_tail = 0;             // of a quantized format: newest positions that stay exact
    std::uint32_t kv_sequences = 1;        // of a quantized format: sequences whose exact positions there is room for
    std::int32_t kv_spare_tails = -1;      // and what no sequence holds any more: ModelOptions
    std::uint32_t n_batch = 512;
    bool pack = true;
    PackCacheOptions pack_cache;
    OffloadOptions offload;
    PrepareProgress progress;
    std::function<void(const std::string&)> log;
};

/// Of all runs so far: those that give tokens, one a sequence (or few in all), and those that read prompts.
struct RunTotals {
    RunMetrics decode, prefill;
};

class Executor {
public:
    static Result<std::unique_ptr<Executor>> create(const gguf::File& file, const ExecutorOptions& options);

    const Hparams& hparams() const { return hparams_; }
    PagePool& pages() { return *pages_; }
    const PagePool& pages() const { return *pages_; }
    std::uint32_t n_batch() const { return n_batch_.load(std::memory_order_relaxed); }
    /// Two tiers: pages() holds what is quantized, exact_pages() the sequences' rings; null where there is one tier.
    const KvTiers& tiers() const { return tiers_; }
    PagePool* exact_pages() { return exact_pages_.get(); }
    const PagePool* exact_pages() const { return exact_pages_.get(); }
    /// Exact pages that a long sequence holds; 0 where there is one tier.
    std::uint32_t exact_pages_each() const { return exact_pages_each_; }
    std::uint32_t n_ctx() const { return n_ctx_; }
    const kernels::KernelTable& table() const { return *table_; }
    std::uint32_t threads() const { return backend_->threads(); }
    std::uint32_t threads_batch() const { return backend_->threads_batch(); }
    std::uint32_t max_threads() const { return pool_->size(); }
    /// 1 .. max_threads() each.
    void set_threads(std::uint32_t decode, std::uint32_t prefill);
    /// Most tokens that a step of prefill takes from now on: 1 .. max_batch(). Safe while others run.
    void set_batch(std::uint32_t n) { n_batch_ = std::clamp(n, 1u, max_batch_); }
    std::uint32_t max_batch() const { return max_batch_; }
    /// Of the host; a device's own is with offload().
    BackendMemory memory() const { return backend_->memory(); }
    /// Which layers a device runs. Its device is null where everything runs on the CPU.
    const Offload& offload() const { return offload_; }
    /// Of the device's kernels; nothing where everything runs on the CPU.
    KernelCheck kernel_check() const { return device_backend_ ? device_backend_->check() : KernelCheck{}; }
    /// What the model's steps ask of the machine, wherever its layers run.
    const PlanCost& cost() const { return cost_; }
    /// Bytes of keys and values that attention reads for a sequence of so many positions.
    double kv_bytes(std::uint32_t n_tokens) const;
    std::uint64_t device_bytes() const { return offload_.device ? offload_.device->held_bytes() : 0; }

    /// Runs one batch of 1 .. max_batch() tokens; one caller at a time gets through. Allocates nothing.
    Status run(const RunArgs& args);
    RunTotals totals() const;
    /// CpuBackend::probe on the executable that run() would take.
    Status probe(const RunArgs& args, std::uint32_t threads, LayerRange layers);

private:
    Executor() = default;
    static Result<std::unique_ptr<Executor>> without_device(const gguf::File& file, ExecutorOptions options, std::string why);
    KvShape kv_shape() const;              // of the model; F16
    KvPlan kv_plan(const ExecutorOptions& o, std::uint32_t n_ctx) const;
    Status settle_offload(const ExecutorOptions& options);
    Status settle_memory(const gguf::File& file, const ExecutorOptions& options);
    Status make_pages(const KvPlan& plan, const ExecutorOptions& options);
    Status prepare_device(const gguf::File& file, const ExecutorOptions& options);
    /// The same bucket on both backends.
    struct Pair { std::unique_ptr<Executable> cpu, device; };
    Result<const Pair*> find_executable(std::size_t n_tokens);
    void count(const RunArgs& args, double seconds, double cpu_seconds, double device_seconds);

    Hparams hparams_;
    Weights weights_;
    Plan plan_;                            // of the CPU
    Plan device_plan_;
    Offload offload_;
    const kernels::KernelTable* table_ = nullptr;
    std::unique_ptr<ThreadPool> pool_;
    std::unique_ptr<VulkanBackend> device_backend_;   // null: none
    std::unique_ptr<PagePool> pages_, exact_pages_;
    std::uint32_t exact_pages_each_ = 0;
    KvTiers tiers_;
    std::unique_ptr<CpuBackend> backend_;
    std::vector<Pair> executables_;        // ascending buckets
    std::uint32_t max_batch_ = 0, n_ctx_ = 0;
    std::atomic<std::uint32_t> n_batch_ = 0;
    std::mutex run_mutex_;
    PlanCost cost_;
    mutable std::mutex totals_mutex_;
    RunTotals totals_;
};

}  // namespace quern::engine
