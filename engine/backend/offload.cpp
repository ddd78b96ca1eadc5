// SPDX-License-Identifier: Apache-2.0
#include "engine/backend/offload.h"

#include <algorithm>

#include "engine/backend/vulkan_weights.h"
#include "engine/core/memory.h"
#include "formats/text.h"

namespace quern::engine {
namespace {

/// Left to the driver and others.
constexpr std::uint64_t kReserve = 256u << 20;

/// Why the kernels cannot run this model at all; empty: they can.
std::string obstacle(const Hparams& h) {
    if (h.head_dim % 8 || h.head_dim > 512) return cat("heads of ", h.head_dim, " values cannot run on a device; they must be multiples of 8 up to 512");
    if (h.n_embd % 4) return cat("rows of ", h.n_embd, " values cannot run on a device; they must be multiples of 4");
    return "";
}

}  // namespace

Result<Offload> choose_offload(const OffloadOptions& o, const Hparams& h, const Weights& weights, const KvPlan& kv, std::uint64_t fixed) {
    Offload out;
    out.first_layer = h.n_layer;
    if (o.n_layers == 0) return out;
    const bool automatic = o.n_layers == OffloadOptions::kAuto;
    const auto none = [&](Error e) -> Result<Offload> {
        if (!automatic || !o.device.device.empty()) return e;
        out.notes.push_back("everything runs on the CPU: " + e.message);
        return std::move(out);
    };
    if (const std::string why = obstacle(h); !why.empty()) return none({Errc::unsupported, why});
    auto device = vulkan::Device::create(o.device);
    if (!device) return none(std::move(device).error());
    const vulkan::DeviceInfo& info = (*device)->info();
    const std::uint32_t most = o.n_layers > 0 ? std::min(static_cast<std::uint32_t>(o.n_layers), h.n_layer) : h.n_layer;
    const std::uint64_t room = info.free_bytes > kReserve ? info.free_bytes - kReserve : 0;
    std::uint64_t need = fixed + VulkanWeights::layer_bytes(weights, h.n_layer);
    std::uint32_t fits = 0;
    for (; fits < most; ++fits) {
        const std::uint32_t layer = h.n_layer - 1 - fits;
        need += VulkanWeights::layer_bytes(weights, layer) + kv.bytes(layer + 1) - kv.bytes(layer);
        if (need > room) break;
    }
    if (fits < most) {
        const std::string numbers = cat(info.name, " has ", format_bytes(room), " free; ", fits + 1, " of ", h.n_layer, " layers with the output and their KV cache take ", format_bytes(need));
        if (!automatic) return Error{Errc::out_of_memory, cat(most, " layers do not fit the device: ", numbers, "; ask for at most ", fits, " layers (or auto), or for a smaller context")};
        if (fits == 0) return none({Errc::out_of_memory, numbers});
        out.notes.push_back(cat("layers 0 to ", h.n_layer - fits - 1, " run on the CPU: ", numbers));
    }
    out.first_layer = h.n_layer - fits;
    out.device = std::move(*device);
    return out;
}

}  // namespace quern::engine
