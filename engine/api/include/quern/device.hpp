// SPDX-License-Identifier: Apache-2.0
// GPUs, through Vulkan: which there are, and which layers run where. Included by quern.hpp.
#ifndef QUERN_DEVICE_HPP
#define QUERN_DEVICE_HPP

#include <cstdint>
#include <string>
#include <vector>

#include "quern/result.hpp"

namespace quern {

/// A device as Vulkan shows it.
struct DeviceInfo {
    std::uint32_t index = 0;
    std::string name, driver, kind;                     ///< kind: "discrete", "integrated", "virtual", "cpu", "other"
    std::uint64_t memory_bytes = 0, free_bytes = 0;     ///< of its own memory; free as far as the driver tells
    std::vector<std::string> features;                  ///< that kernels may use: "float16", "integer-dot", "coopmat", ...
    std::string refusal;                                ///< why it cannot be used; "": it can
};

/// Every device, unusable ones too. Errc::unsupported where there is no Vulkan on this machine or in this build.
Result<std::vector<DeviceInfo>> list_devices();

/// ModelOptions::n_gpu_layers
inline constexpr std::int32_t kGpuLayersAuto = -1;      ///< as many as the device's memory holds; none where there is no GPU
inline constexpr std::int32_t kGpuLayersAll = -2;       ///< all, or an Error

/// What runs where, and what was asked for and is not so.
struct GpuReport {
    std::string device;                                 ///< "": everything runs on the CPU
    std::uint32_t n_layer = 0;
    std::uint32_t first_gpu_layer = 0;                  ///< layers from this one on, and the output, run on the device
    std::uint64_t device_bytes = 0;                     ///< held there: weights, KV cache, buffers
    std::vector<std::string> notes;
    std::uint32_t kernels_checked = 0;                  ///< all that the model uses there, compared with the CPU's results when it was loaded
    double check_seconds = 0;                           ///< what that took, making them included
    /// "layers 0 to 11 on the CPU, 12 to 29 and the output on ...", a line for the check, a line each for the notes.
    std::string to_string() const;
};

}  // namespace quern

#endif
