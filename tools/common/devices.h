// SPDX-License-Identifier: Apache-2.0
// The flags about GPUs.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

namespace quern::tools {

struct DeviceFlags {
    std::string device;
    std::string layers;   // -ngl as given
    std::vector<std::string> disable;

    /// Adds --device, -ngl, --device-disable and --list-devices, which prints the devices and ends the program.
    void add_to(CLI::App& app);
    /// ModelOptions::n_gpu_layers; a device without a number of layers means as many as fit.
    std::int32_t n_gpu_layers() const;
};

}  // namespace quern::tools
