// SPDX-License-Identifier: Apache-2.0
// The Vulkan backend: the last layers of a model and its output on a device. A plan is recorded once for each batch bucket;
// what changes between runs lies in a block of numbers that the recorded commands read (kernels/vulkan/args.h).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/backend/vulkan_weights.h"
#include "engine/kv/tiers.h"
#include "kernels/table.h"

namespace quern::engine {

/// What a Vulkan backend stands on; everything outlives it.
struct VulkanBackendArgs {
    vulkan::Device* device = nullptr;
    const gguf::File* file = nullptr;
    const Hparams* hparams = nullptr;
    const Weights* weights = nullptr;
    const Plan* plan = nullptr;        // cut_plan().tail
    std::uint32_t first_layer = 0;
    KvShape kv, exact;                 // of all layers; exact: of the rings, where there are two tiers
    std::uint32_t n_pages = 0, n_exact_pages = 0;
    KvTiers tiers;
    ThreadPool* pool = nullptr;        // for packing
    const kernels::KernelTable* table = nullptr;   // what the device's kernels are compared with
    std::uint32_t n_ctx = 0;
    std::uint32_t max_bucket = 1;
};

/// Kernels whose results were compared with the CPU's before the device was trusted, and what that took.
struct KernelCheck {
    std::uint32_t n_kernels = 0;
    double seconds = 0;
};

class VulkanBackend final : public Backend {
public:
    explicit VulkanBackend(const VulkanBackendArgs& args);
    ~VulkanBackend() override;

    /// Bytes on the device beside weights and KV cache, at most.
    static std::uint64_t buffer_bytes(const Hparams& hparams, const KvPlan& kv, std::uint32_t n_ctx, std::uint32_t max_bucket);

    std::string name() const override;
    bool supports(OpKind op, DType weight) const override;
    BackendMemory estimate() const override;
    Status prepare(const PrepareProgress& progress) override;
    Result<std::unique_ptr<Executable>> compile(std::uint32_t bucket) override;
    Status run(Executable& executable, const RunArgs& args) override;
    BackendMemory memory() const override;

    /// The device's layers of the page pool, and of the rings' pool. After prepare(); must not outlive the backend.
    std::unique_ptr<DevicePages> pages();
    std::unique_ptr<DevicePages> exact_pages();
    /// Seconds that the device was at the last run's work, by its own clock; 0 where it has none.
    double run_seconds() const;
    /// After prepare().
    KernelCheck check() const;
    /// Where the residual stream of the next run goes: [max_bucket][n_embd] floats.
    float* crossing();

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace quern::engine
