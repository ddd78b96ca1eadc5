// SPDX-License-Identifier: Apache-2.0
// A plan as commands of a device: which kernels run in what order on what memory, recorded once a batch bucket.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "engine/backend/vulkan_run.h"
#include "engine/backend/vulkan_weights.h"
#include "engine/kv/page_pool.h"
#include "kernels/vulkan/matmul.h"

namespace quern::engine {

/// Rows of logits that are made at a time: what a matrix kernel takes in one reading of the output matrix.
inline constexpr std::uint32_t kOutputRows = vulkan::kMatvecCols;

/// Memory that all executables share.
struct DeviceBuffers {
    std::vector<vulkan::Buffer> pages;       // KV cache, a layer each
    std::vector<vulkan::Buffer> exact;       // two tiers: the rings' pages, a layer each
    vulkan::Buffer staging;                  // two tiers: F16 pages of chunks too long for their ring, of one layer at a time
    vulkan::Buffer arena, partials;          // activations; attention's partial results, then their (max, sum)
    vulkan::Buffer logits;                   // [kOutputRows][n_vocab], read by the host
    vulkan::Buffer run, pass, crossing;      // written by the host
};

struct RecordArgs {
    vulkan::Device* device;
    const Hparams* hparams;
    const Weights* shapes;
    const Plan* plan;
    const VulkanWeights* weights;
    const DeviceBuffers* buffers;
    const RunLayout* layout;
    KvShape kv, exact;
    std::uint32_t first_layer;
};

/// The output matrix for rows of a batch larger than kOutputRows, some at a time; the pass says which.
struct OutputPass {
    vulkan::Commands commands;
    std::vector<DispatchShape> shapes;
};
/// Writes the numbers of a pass over output rows [first, first + n).
void write_pass(std::span<std::byte> to, const OutputPass& pass, std::uint32_t first, std::uint32_t n);

class VulkanExecutable final : public Executable {
public:
    explicit VulkanExecutable(std::uint32_t bucket) : bucket_(bucket) {}
    std::uint32_t bucket() const override { return bucket_; }

    std::vector<vulkan::Commands> commands;
    std::vector<vulkan::Commands*> body;     // of these, submitted one by one: none runs long enough for a driver to give up on it
    std::vector<DispatchShape> shapes;
    std::optional<OutputPass> output;        // absent: the body makes the logits

private:
    std::uint32_t bucket_;
};

struct RecordSizes { std::size_t arena = 0, partials = 0, run = 0, pass = 0; };
/// What buckets up to the largest need. Weights need not be there yet.
RecordSizes record_sizes(const RecordArgs& args, std::uint32_t max_bucket);

/// The kind of kernel for a matrix of this type and use, for up to max_cols columns, with the features that the device has now.
vulkan::MatmulKind matmul_kind(const RecordArgs& args, DType type, Slot weight, std::uint32_t max_cols);

/// Columns that the kernels of matrices with this input are made for: rows of logits are made some at a time.
std::uint32_t matmul_cols(const Plan& plan, ValueId in, std::uint32_t bucket);
/// Whether a matmul_glu is one kernel in this bucket.
bool fuses_glu(const RecordArgs& args, const Op& op, std::uint32_t bucket);

/// Query tokens in a wide segment of attention, the same in all layers.
std::uint32_t wide_tokens(const Hparams& hparams, const KvShape& kv, std::uint32_t first_layer);

Result<std::unique_ptr<Executable>> record_plan(const RecordArgs& args, std::uint32_t bucket);

/// Where the floats of a value of the plan lie in the arena, in bytes: rows of `width` rounded up to 4.
std::size_t value_offset(const RecordArgs& args, std::uint32_t bucket, ValueId value);

}  // namespace quern::engine
