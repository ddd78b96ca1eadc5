// SPDX-License-Identifier: Apache-2.0
// A loaded model ready to run: file, weights, backend, one executable a batch bucket, and the pages of the KV cache.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/backend/cpu.h"

namespace quern::engine {

struct ExecutorOptions {
    std::uint32_t n_threads = 1;
    std::vector<int> cpus;                 // to pin to; empty: none
    std::string isa;
    std::uint64_t memory_limit = 0;
    std::uint32_t n_ctx = 0;
    bool allow_smaller_context = false;
    kernels::KvFormat kv_format = kernels::KvFormat::F16;
    std::uint32_t n_batch = 512;
    bool pack = true;
    PackCacheOptions pack_cache;
    PrepareProgress progress;
    std::function<void(const std::string&)> log;
};

class Executor {
public:
    static Result<std::unique_ptr<Executor>> create(const gguf::File& file, const ExecutorOptions& options);

    const Hparams& hparams() const { return hparams_; }
    PagePool& pages() { return *pages_; }
    const PagePool& pages() const { return *pages_; }
    std::uint32_t n_batch() const { return n_batch_; }
    std::uint32_t n_ctx() const { return n_ctx_; }
    const kernels::KernelTable& table() const { return *table_; }
    std::uint32_t threads() const { return backend_->threads(); }
    std::uint32_t max_threads() const { return pool_->size(); }
    void set_threads(std::uint32_t n);
    BackendMemory memory() const { return backend_->memory(); }

    /// Runs one batch of 1 .. n_batch() tokens; one caller at a time gets through. Allocates nothing.
    Status run(const RunArgs& args);

private:
    Executor() = default;
    Status settle_memory(const gguf::File& file, const ExecutorOptions& options);

    Hparams hparams_;
    Weights weights_;
    Plan plan_;
    const kernels::KernelTable* table_ = nullptr;
    std::unique_ptr<ThreadPool> pool_;
    std::unique_ptr<PagePool> pages_;
    std::unique_ptr<CpuBackend> backend_;
    std::vector<std::unique_ptr<Executable>> executables_;   // ascending buckets
    std::uint32_t n_batch_ = 0, n_ctx_ = 0;
    std::mutex run_mutex_;
};

}  // namespace quern::engine
