// SPDX-License-Identifier: Apache-2.0
// The CPU backend: lowers a plan to steps that all threads of the pool walk together.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/backend/cpu_weights.h"
#include "engine/kv/tiers.h"

namespace quern::engine {

/// What a CPU backend stands on; everything outlives it.
struct CpuBackendArgs {
    const gguf::File* file = nullptr;
    const Hparams* hparams = nullptr;
    const Weights* weights = nullptr;
    const Plan* plan = nullptr;
    std::uint32_t n_layers = 0;   // that the plan runs, from the first
    PagePool* pages = nullptr;
    PagePool* exact = nullptr;    // pages of the sequences' rings, where there are two tiers
    KvTiers tiers;
    ThreadPool* pool = nullptr;
    const kernels::KernelTable* table = nullptr;
    std::uint32_t n_ctx = 0;      // longest sequence
    std::uint32_t max_bucket = 1; // largest batch that will be compiled for
    bool pack = true;             // pack the weights at load; else at each use, from the file's mapping
    PackCacheOptions pack_cache;
    Numa numa;                    // where the packed weights go; local: as many parts as the pool has queues
};

/// The layers [first, first + n) that a probe runs.
struct LayerRange { std::uint32_t first = 0, n = UINT32_MAX; };

class CpuBackend final : public Backend {
public:
    explicit CpuBackend(const CpuBackendArgs& args);
    ~CpuBackend() override;

    std::string name() const override;
    bool supports(OpKind op, DType weight) const override;
    BackendMemory estimate() const override;
    Status prepare(const PrepareProgress& progress) override;
    Result<std::unique_ptr<Executable>> compile(std::uint32_t bucket) override;
    Status run(Executable& executable, const RunArgs& args) override;
    BackendMemory memory() const override;

    /// Threads that take part in the next runs, 1 .. pool size: decode, which is waiting for memory, and prefill, which
    /// is arithmetic.
    void set_threads(std::uint32_t decode, std::uint32_t prefill) { n_threads_ = decode; n_threads_batch_ = prefill; }
    std::uint32_t threads() const { return n_threads_; }
    std::uint32_t threads_batch() const { return n_threads_batch_; }
    static constexpr std::uint32_t kDecodeBucket = 8;
    /// Whether a run counts as decode: every chunk is one token, or the bucket is at most kDecodeBucket.
    static bool decodes(std::uint32_t bucket, const RunArgs& args) {
        return bucket <= kDecodeBucket || args.chunks.size() == args.tokens.size();
    }

    /// run() with `threads` threads through a stretch of layers only, to be timed: what it computes means nothing.
    void probe(Executable& executable, const RunArgs& args, std::uint32_t threads, LayerRange layers);

private:
    struct Lowered;
    Lowered lower(std::uint32_t bucket) const;
    /// Bytes of the arena, and of scratch a thread, that every bucket gets by with.
    struct Sizes { std::size_t arena = 0, scratch = 0; };
    Sizes sizes() const;

    /// Refuses what the staging buffer has no room for, and trees that cannot be run.
    Status check_chunks(const RunArgs& args) const;
    Status check_tree(const SeqChunk& chunk) const;

    CpuBackendArgs args_;
    CpuWeights weights_;
    RopeAngles angles_;
    Mapping arena_, scratch_;          // shared by all executables; scratch_ has one stretch a thread
    std::size_t scratch_stride_ = 0;
    std::atomic<std::uint32_t> n_threads_ = 1, n_threads_batch_ = 1;   // set between runs, read by anybody
    std::vector<std::uint32_t> staging_pages_;  // 0, 1, 2, ...: the block table of the staging buffer
};

}  // namespace quern::engine
