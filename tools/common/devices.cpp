// SPDX-License-Identifier: Apache-2.0
#include "tools/common/devices.h"

#include <charconv>
#include <cstdio>

#include "quern/quern.hpp"

namespace quern::tools {
namespace {

constexpr std::int32_t kMostLayers = 1 << 20;

bool parse_layers(const std::string& text, std::int32_t& n) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
    return error == std::errc() && end == text.data() + text.size() && n >= 0 && n <= kMostLayers;
}

void print_devices() {
    const auto devices = list_devices();
    if (!devices) {
        std::fprintf(stderr, "%s\n", devices.error().message.c_str());
        throw CLI::RuntimeError(1);
    }
    for (const DeviceInfo& d : *devices) {
        std::string features;
        for (const std::string& f : d.features) features += (features.empty() ? "" : " ") + f;
        std::printf("%u  %s (%s; %s), %.1f GiB, %.1f free%s%s%s%s\n", d.index, d.name.c_str(), d.kind.c_str(), d.driver.c_str(), static_cast<double>(d.memory_bytes) / (1 << 30),
                    static_cast<double>(d.free_bytes) / (1 << 30), features.empty() ? "" : ": ", features.c_str(), d.refusal.empty() ? "" : "; cannot be used: ", d.refusal.c_str());
    }
    throw CLI::Success();
}

}  // namespace

void DeviceFlags::add_to(CLI::App& app) {
    app.add_option("--device", device, "GPU to use: an index of --list-devices or a part of a name; a CPU device is only\ntaken where it is named")->type_name("NAME");
    app.add_option("--n-gpu-layers", layers, "Layers, from the last, that the GPU runs (also -ngl): a number, auto (as many as fit) or all;\ndefault: none, with --device auto")
        ->type_name("N|auto|all")
        ->check([](const std::string& text) {
            std::int32_t n = 0;
            return text == "auto" || text == "all" || parse_layers(text, n) ? std::string() : "'" + text + "' is neither a number of layers nor auto nor all";
        });
    app.add_option("--device-disable", disable, "Features of --list-devices that are not used: coopmat,integer-dot")->delimiter(',')->type_name("NAMES");
    app.add_flag_callback("--list-devices", print_devices, "Print the GPUs that Vulkan shows, and end")->trigger_on_parse();
}

std::int32_t DeviceFlags::n_gpu_layers() const {
    if (layers.empty()) return device.empty() ? 0 : kGpuLayersAuto;
    if (layers == "auto") return kGpuLayersAuto;
    if (layers == "all") return kGpuLayersAll;
    std::int32_t n = 0;
    parse_layers(layers, n);
    return n;
}

}  // namespace quern::tools
