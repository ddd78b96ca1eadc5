// SPDX-License-Identifier: Apache-2.0
// Which layers a device runs: the last ones and the output, as many as are asked for or as its memory holds.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/kv/tiers.h"
#include "engine/model/weights.h"
#include "kernels/vulkan/device.h"

namespace quern::engine {

struct OffloadOptions {
    static constexpr std::int32_t kAuto = -1, kAll = -2;
    std::int32_t n_layers = 0;      // 0: no device; kAuto: as many as fit; kAll: all or an Error
    vulkan::DeviceOptions device;
};

/// What came of it, for a person too.
struct Offload {
    std::unique_ptr<vulkan::Device> device;   // null: everything runs on the CPU
    std::uint32_t first_layer = 0;            // on the device; the number of layers where device is null
    std::vector<std::string> notes;           // what was asked for and is not so, and why
};

/// kv: what the cache holds; fixed: bytes on the device beside layers and cache (buffers). An Error where a device or a number of layers
/// was asked for that cannot be had; with kAuto the CPU does what the device cannot, and a note says why.
Result<Offload> choose_offload(const OffloadOptions& options, const Hparams& hparams, const Weights& weights, const KvPlan& kv, std::uint64_t fixed);

}  // namespace quern::engine
