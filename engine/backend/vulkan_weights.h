// SPDX-License-Identifier: Apache-2.0
// The weights of the layers that a device runs: the CPU's packed panels (kernels/cpu/panel.h), byte for byte, and vectors as
// float, in a few large buffers.
#pragma once

#include <vector>

#include "engine/backend/backend.h"
#include "engine/core/thread_pool.h"
#include "engine/model/weights.h"
#include "kernels/vulkan/device.h"

namespace quern::engine {

/// Rows [first_row, first_row + n_rows) of a matrix, whole panels but for the last.
struct DevicePanels {
    std::uint64_t address;
    std::uint32_t first_row, n_rows;
};

struct DeviceMatrix {
    DType type = DType::F32;
    std::uint32_t n_rows = 0, n_k = 0;
    std::size_t panel_stride = 0;       // bytes
    std::vector<DevicePanels> parts;    // more than one where a buffer cannot hold all
};

class VulkanWeights {
public:
    /// Of the layers [first_layer, n_layer) and the output.
    VulkanWeights(vulkan::Device& device, const gguf::File& file, const Weights& weights, std::uint32_t first_layer)
        : device_(device), file_(file), weights_(weights), first_layer_(first_layer) {}

    /// Bytes that load() takes on the device, of a layer or (layer = n_layer) of the output.
    static std::uint64_t layer_bytes(const Weights& weights, std::uint32_t layer);
    std::uint64_t bytes() const;
    /// Packs with all threads of the pool while the device copies what was packed before (Device::write).
    Status load(ThreadPool& pool, const PrepareProgress& progress);

    /// After load(); Slot::output gives the tied embedding where there is no output tensor.
    const DeviceMatrix& matrix(Slot s, std::uint32_t layer) const { return matrices_[index(s, layer)]; }
    /// Address of a vector's floats; 0 where absent.
    std::uint64_t vector(Slot s, std::uint32_t layer) const { return s == Slot::count ? 0 : vectors_[index(s, layer)]; }

private:
    struct Upload;
    std::size_t index(Slot s, std::uint32_t layer) const { return layer * kSlots + static_cast<std::size_t>(s); }
    Result<std::vector<Upload>> place();

    vulkan::Device& device_;
    const gguf::File& file_;
    const Weights& weights_;
    std::uint32_t first_layer_;
    std::vector<vulkan::Buffer> buffers_;
    std::vector<DeviceMatrix> matrices_;
    std::vector<std::uint64_t> vectors_;
};

}  // namespace quern::engine
