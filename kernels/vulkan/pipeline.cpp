// SPDX-License-Identifier: Apache-2.0
// Kernels, made when first asked for.
#include <algorithm>

#include "formats/text.h"
#include "kernels/vulkan/core.h"

namespace quern::vulkan {
namespace {

Result<std::span<const std::uint32_t>> find_module(std::string_view name) {
    const std::span<const ModuleInfo> all = modules();
    for (std::size_t i = 0; i < all.size(); ++i)
        if (all[i].name == name) return module_words(i);
    for (const std::string_view missing : missing_modules())
        if (missing.substr(0, missing.find(':')) == name)
            return Error{Errc::unsupported, cat("a shader is not in this build: ", missing)};
    return Error{Errc::invalid_argument, cat("no shader module ", quoted(name), " in shaders/variants.list")};
}

}  // namespace

Result<const Kernel*> Device::kernel(std::string_view module, std::span<const std::uint32_t> constants,
                                     std::uint32_t required_subgroup) {
    Core& core = *impl_;
    Core::KernelKey key(std::string(module), {constants.begin(), constants.end()}, required_subgroup);
    {
        const std::lock_guard lock(core.kernels_mutex);
        const auto found = core.kernels.find(key);
        if (found != core.kernels.end()) return found->second.get();
    }
    const DeviceInfo& device = core.traits.info;
    if (required_subgroup != 0 &&
        (!has(kSubgroupSize) || required_subgroup < device.min_subgroup || required_subgroup > device.max_subgroup ||
         (required_subgroup & (required_subgroup - 1)) != 0))
        return Error{Errc::unsupported,
                     cat(module, ": ", quoted(device.name), " cannot be asked for a subgroup of ", required_subgroup,
                         " (", device.min_subgroup, " to ", device.max_subgroup, ")")};
    Result<std::span<const std::uint32_t>> words = find_module(module);
    if (!words) return words.error();

    auto module_info = start_of<VkShaderModuleCreateInfo>(VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO);
    module_info.codeSize = words->size_bytes();
    module_info.pCode = words->data();
    VkShaderModule shader = VK_NULL_HANDLE;
    VkResult r = core.fn.CreateShaderModule(core.device, &module_info, nullptr, &shader);
    if (r != VK_SUCCESS)
        return Error{Errc::unsupported,
                     cat(module, ": ", quoted(device.name), " refuses the shader: ", result_name(r))};

    std::vector<VkSpecializationMapEntry> entries(constants.size());
    for (std::uint32_t i = 0; i < entries.size(); ++i) entries[i] = {i, i * 4, 4};
    VkSpecializationInfo specialization = {};
    specialization.mapEntryCount = static_cast<std::uint32_t>(entries.size());
    specialization.pMapEntries = entries.data();
    specialization.dataSize = constants.size_bytes();
    specialization.pData = constants.data();
    auto size = start_of<VkPipelineShaderStageRequiredSubgroupSizeCreateInfo>(
        VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO);
    size.requiredSubgroupSize = required_subgroup;
    auto info = start_of<VkComputePipelineCreateInfo>(VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO);
    info.stage.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO;
    info.stage.stage = VK_SHADER_STAGE_COMPUTE_BIT;
    info.stage.module = shader;
    info.stage.pName = "main";
    info.stage.pSpecializationInfo = constants.empty() ? nullptr : &specialization;
    if (required_subgroup != 0) {
        info.stage.pNext = &size;
        if (core.traits.full_subgroups) info.stage.flags = VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT;
    }
    info.layout = core.layout;
    info.basePipelineIndex = -1;
    auto made = std::make_unique<Kernel>();
    made->silent = module == core.options.faults.kernel;
    // Outside the lock: a driver takes long, and several threads may make kernels at once.
    r = core.fn.CreateComputePipelines(core.device, core.cache, 1, &info, nullptr, &made->pipeline);
    core.fn.DestroyShaderModule(core.device, shader, nullptr);
    if (r != VK_SUCCESS) {
        // Drivers were seen to set the handle of a pipeline that failed; only success makes one.
        return Error{r == VK_ERROR_OUT_OF_HOST_MEMORY || r == VK_ERROR_OUT_OF_DEVICE_MEMORY ? Errc::out_of_memory
                                                                                            : Errc::unsupported,
                     cat(module, ": ", quoted(device.name), " makes no pipeline of it: ", result_name(r))};
    }
    const std::lock_guard lock(core.kernels_mutex);
    const auto [place, is_new] = core.kernels.try_emplace(std::move(key), std::move(made));
    if (!is_new) core.fn.DestroyPipeline(core.device, made->pipeline, nullptr);  // another thread was faster
    return place->second.get();
}

std::uint32_t Device::n_kernels() const {
    const std::lock_guard lock(impl_->kernels_mutex);
    return static_cast<std::uint32_t>(impl_->kernels.size());
}

}  // namespace quern::vulkan
