// SPDX-License-Identifier: Apache-2.0
#include "quern/device.hpp"

#include <nlohmann/json.hpp>

#include "engine/api/model_impl.h"
#include "engine/api/quern_c.h"
#include "formats/text.h"

namespace quern {
namespace {

const char* kind_name(vulkan::DeviceKind k) {
    switch (k) {
        case vulkan::DeviceKind::discrete: return "discrete";
        case vulkan::DeviceKind::integrated: return "integrated";
        case vulkan::DeviceKind::virtual_gpu: return "virtual";
        case vulkan::DeviceKind::cpu: return "cpu";
        default: return "other";
    }
}

std::string layers(std::uint32_t first, std::uint32_t end) {
    return end - first == 1 ? cat("layer ", first) : cat("layers ", first, " to ", end - 1);
}

}  // namespace

Result<std::vector<DeviceInfo>> list_devices() {
    auto found = vulkan::list_devices();
    if (!found) return std::move(found).error();
    std::vector<DeviceInfo> out;
    for (vulkan::DeviceInfo& d : *found) {
        out.push_back({d.index, std::move(d.name), std::move(d.driver), kind_name(d.kind), d.memory_bytes, d.free_bytes, {}, std::move(d.refusal)});
        for (std::uint32_t i = 0; !vulkan::feature_name(i).empty(); ++i)
            if (d.features >> i & 1) out.back().features.emplace_back(vulkan::feature_name(i));
    }
    return out;
}

GpuReport Model::verify_gpu_utilization() const {
    const engine::Executor& e = *impl_->executor;
    GpuReport r;
    if (e.offload().device) r.device = e.offload().device->info().name;
    r.n_layer = impl_->info.n_layer;
    r.first_gpu_layer = e.offload().first_layer;
    r.device_bytes = e.device_bytes();
    r.notes = e.offload().notes;
    r.kernels_checked = e.kernel_check().n_kernels;
    r.check_seconds = e.kernel_check().seconds;
    return r;
}

std::string GpuReport::to_string() const {
    std::string out;
    if (device.empty()) out = cat("all ", n_layer, " layers on the CPU\n");
    else if (first_gpu_layer == 0) out = cat("all ", n_layer, " layers and the output on ", device, "\n");
    else out = cat(layers(0, first_gpu_layer), " on the CPU, ", layers(first_gpu_layer, n_layer), " and the output on ", device, "\n");
    if (kernels_checked > 0) out += cat(kernels_checked, " kernels of the device were compared with the CPU's results, in ", static_cast<int>(check_seconds * 1000 + 0.5), " ms\n");
    for (const std::string& note : notes) out += note + "\n";
    return out;
}

}  // namespace quern

using quern::Status;
using namespace quern::c_api;

quern_status quern_list_devices(char** out, quern_error* error) {
    return guarded(error, [&]() -> Status {
        QUERN_NEED(out);
        *out = nullptr;
        auto devices = quern::list_devices();
        if (!devices) return std::move(devices).error();
        auto list = nlohmann::ordered_json::array();
        for (const quern::DeviceInfo& d : *devices)
            list.push_back({{"index", d.index}, {"name", d.name}, {"driver", d.driver}, {"kind", d.kind}, {"memory_bytes", d.memory_bytes},
                            {"free_bytes", d.free_bytes}, {"features", d.features}, {"refusal", d.refusal}});
        *out = copy_out(list.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
        return {};
    });
}

quern_status quern_model_gpu_text(const quern_model* model, char** out, quern_error* error) {
    return guarded(error, [&]() -> Status {
        QUERN_NEED(out);
        *out = nullptr;
        QUERN_NEED(model);
        *out = copy_out(model->model.verify_gpu_utilization().to_string());
        return {};
    });
}
