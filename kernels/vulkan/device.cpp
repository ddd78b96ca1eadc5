// SPDX-License-Identifier: Apache-2.0
#include "kernels/vulkan/device.h"

#include <algorithm>
#include <charconv>

#include "formats/text.h"
#include "kernels/vulkan/core.h"

namespace quern::vulkan {
namespace {

std::string lower(std::string_view s) {
    std::string out(s);
    for (char& c : out)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    return out;
}

std::string list_of(const std::vector<Traits>& all) {
    std::string out;
    for (const Traits& t : all) {
        out += cat(out.empty() ? "" : ", ", t.info.index, " ", quoted(t.info.name));
        if (!t.info.refusal.empty())
            out += cat(" (", t.info.refusal, ")");
        else if (t.info.kind == DeviceKind::cpu)
            out += " (a CPU: only by name or index)";
    }
    return out;
}

const Traits* first_gpu(const std::vector<Traits>& all) {
    for (const DeviceKind kind :
         {DeviceKind::discrete, DeviceKind::integrated, DeviceKind::virtual_gpu, DeviceKind::other})
        for (const Traits& t : all)
            if (t.info.kind == kind && t.info.refusal.empty()) return &t;
    return nullptr;
}

Result<Traits> choose(const std::vector<Traits>& all, const std::string& wanted) {
    const Traits* found = nullptr;
    if (wanted.empty()) {
        found = first_gpu(all);
        if (!found) return Error{Errc::unsupported, cat("no GPU that can be used; there are: ", list_of(all))};
    } else {
        std::uint32_t index = 0;
        const char* end = wanted.data() + wanted.size();
        const auto [stop, error] = std::from_chars(wanted.data(), end, index);
        if (error == std::errc() && stop == end) {
            if (index < all.size()) found = &all[index];
        }
        if (!found) {  // "4090" may be a part of a name
            for (const Traits& t : all)
                if (lower(t.info.name).find(lower(wanted)) != std::string::npos &&
                    (!found || !found->info.refusal.empty()))
                    found = &t;
        }
        if (!found)
            return Error{Errc::invalid_argument,
                         cat("no Vulkan device ", quoted(wanted), "; there are: ", list_of(all))};
    }
    if (!found->info.refusal.empty())
        return Error{Errc::unsupported, cat("the Vulkan device ", quoted(found->info.name), " ", found->info.refusal,
                                            "; there are: ", list_of(all))};
    return *found;
}

}  // namespace

Status Core::start() {
    // Everything that a kernel might use and that is there; a module that uses more is not taken.
    auto v11 = start_of<VkPhysicalDeviceVulkan11Features>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES);
    v11.storageBuffer16BitAccess = traits.storage16;
    auto v12 = start_of<VkPhysicalDeviceVulkan12Features>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES);
    v12.bufferDeviceAddress = true;
    v12.storageBuffer8BitAccess = traits.storage8;
    v12.shaderInt8 = traits.int8;
    v12.shaderFloat16 = (traits.info.features & kFloat16) != 0;
    v12.vulkanMemoryModel = v12.vulkanMemoryModelDeviceScope = traits.memory_model;
    auto sizes = start_of<VkPhysicalDeviceSubgroupSizeControlFeatures>(
        VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES);
    sizes.subgroupSizeControl = true;
    sizes.computeFullSubgroups = traits.full_subgroups;
    auto dot = start_of<VkPhysicalDeviceShaderIntegerDotProductFeatures>(
        VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES);
    dot.shaderIntegerDotProduct = true;
    auto coopmat = start_of<VkPhysicalDeviceCooperativeMatrixFeaturesKHR>(
        VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR);
    coopmat.cooperativeMatrix = true;
    void* head = nullptr;
    std::vector<const char*> extensions;
    chain(head, v11);
    chain(head, v12);
    const bool is_13 = traits.api >= VK_API_VERSION_1_3;
    if (traits.info.features & kSubgroupSize) {
        chain(head, sizes);
        if (!is_13) extensions.push_back(VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME);
    }
    if (traits.info.features & kIntegerDot) {
        chain(head, dot);
        if (!is_13) extensions.push_back(VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME);
    }
    if (traits.info.features & kCoopmat) {
        chain(head, coopmat);
        extensions.push_back(VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME);
    }
    auto wanted = start_of<VkPhysicalDeviceFeatures2>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2);
    wanted.features.shaderInt16 = traits.int16;
    wanted.pNext = head;

    const float priority = 1;
    auto queues = start_of<VkDeviceQueueCreateInfo>(VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO);
    queues.queueFamilyIndex = traits.queue_family;
    queues.queueCount = 1;
    queues.pQueuePriorities = &priority;
    auto info = start_of<VkDeviceCreateInfo>(VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO);
    info.pNext = &wanted;
    info.queueCreateInfoCount = 1;
    info.pQueueCreateInfos = &queues;
    info.enabledExtensionCount = static_cast<std::uint32_t>(extensions.size());
    info.ppEnabledExtensionNames = extensions.data();
    VkResult r = instance->fn.CreateDevice(physical, &info, nullptr, &device);
    if (r != VK_SUCCESS) {
        device = VK_NULL_HANDLE;
        return Error{Errc::unsupported,
                     cat("the driver of ", quoted(traits.info.name), " refuses a device: ", result_name(r))};
    }
    std::string missing;
#define QUERN_VK_LOAD(name)                                                                              \
    if (!(fn.name = reinterpret_cast<PFN_vk##name>(instance->fn.GetDeviceProcAddr(device, "vk" #name)))) \
        missing = "vk" #name;
    QUERN_VK_DEVICE(QUERN_VK_LOAD)
#undef QUERN_VK_LOAD
    if (!missing.empty())
        return Error{Errc::unsupported,
                     cat("the driver of ", quoted(traits.info.name), " has no ", missing, ": update it")};
    fn.GetDeviceQueue(device, traits.queue_family, 0, &queue);

    // One layout serves every kernel: nothing but push constants is ever bound.
    VkPushConstantRange push = {VK_SHADER_STAGE_COMPUTE_BIT, 0, kMaxPush};
    auto layout_info = start_of<VkPipelineLayoutCreateInfo>(VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO);
    layout_info.pushConstantRangeCount = 1;
    layout_info.pPushConstantRanges = &push;
    auto fence_info = start_of<VkFenceCreateInfo>(VK_STRUCTURE_TYPE_FENCE_CREATE_INFO);
    if ((r = fn.CreatePipelineLayout(device, &layout_info, nullptr, &layout)) != VK_SUCCESS ||
        (r = fn.CreateFence(device, &fence_info, nullptr, &fence)) != VK_SUCCESS)
        return Error{Errc::out_of_memory,
                     cat("the driver of ", quoted(traits.info.name), " cannot start: ", result_name(r))};
    load_cache();
    return {};
}

Core::~Core() {
    if (!device) return;
    if (fn.DeviceWaitIdle) fn.DeviceWaitIdle(device);
    save_cache();
    for (StagingSlot& slot : slots) {
        release(slot.memory);
        release(slot.commands);
        if (slot.fence) fn.DestroyFence(device, slot.fence, nullptr);
    }
    for (const auto& [key, kernel] : kernels) fn.DestroyPipeline(device, kernel->pipeline, nullptr);
    if (cache) fn.DestroyPipelineCache(device, cache, nullptr);
    if (fence) fn.DestroyFence(device, fence, nullptr);
    if (layout) fn.DestroyPipelineLayout(device, layout, nullptr);
    if (fn.DestroyDevice) fn.DestroyDevice(device, nullptr);
}

Device::Device() : impl_(std::make_unique<Impl>()) {}
Device::~Device() = default;

Result<std::unique_ptr<Device>> Device::create(const DeviceOptions& options) {
    Result<std::unique_ptr<Instance>> instance = Instance::create(options.validation, options.log);
    if (!instance) return instance.error();
    std::vector<Traits> all;
    for (std::uint32_t i = 0; i < (*instance)->devices.size(); ++i)
        all.push_back(describe(**instance, (*instance)->devices[i], i));
    Result<Traits> chosen = choose(all, options.device);
    if (!chosen) return chosen.error();
    std::unique_ptr<Device> out(new Device);
    Impl& impl = *out->impl_;
    impl.options = options;
    impl.physical = (*instance)->devices[chosen->info.index];
    impl.instance = std::move(*instance);
    impl.traits = std::move(*chosen);
    if (options.force_integer_dot && impl.traits.slow_integer_dot) impl.traits.info.features |= kIntegerDot;
    impl.features = impl.traits.info.features & ~options.disable;
    if (Status s = impl.start(); !s) return s.error();
    return out;
}

const DeviceInfo& Device::info() const { return impl_->traits.info; }
bool Device::has(Feature f) const { return (impl_->features & f) != 0; }

void Device::disable(Feature f, const std::string& why) {
    impl_->features &= ~static_cast<std::uint32_t>(f);
    std::uint32_t index = 0;
    while (index < 31 && !(f >> index & 1u)) ++index;
    impl_->log(cat(impl_->traits.info.name, ": ", feature_name(index), " is off: ", why));
}

std::uint64_t Device::held_bytes() const { return impl_->held; }
std::uint32_t Device::n_validation_messages() const { return impl_->instance->n_messages; }

void Device::save_cache() {
    const std::lock_guard lock(impl_->kernels_mutex);
    impl_->save_cache();
}

}  // namespace quern::vulkan
