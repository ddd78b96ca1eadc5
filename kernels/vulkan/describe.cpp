// SPDX-License-Identifier: Apache-2.0
// What a physical device is and can do.
#include <algorithm>
#include <cstring>
#include <set>

#include "formats/text.h"
#include "kernels/vulkan/instance.h"

namespace quern::vulkan {
namespace {

std::set<std::string> extensions_of(const Instance& instance, VkPhysicalDevice device) {
    std::uint32_t n = 0;
    std::set<std::string> out;
    if (instance.fn.EnumerateDeviceExtensionProperties(device, nullptr, &n, nullptr) != VK_SUCCESS) return out;
    std::vector<VkExtensionProperties> list(n);
    if (instance.fn.EnumerateDeviceExtensionProperties(device, nullptr, &n, list.data()) < 0) return out;
    for (std::uint32_t i = 0; i < n; ++i) out.insert(list[i].extensionName);
    return out;
}

DeviceKind kind_of(VkPhysicalDeviceType type) {
    switch (type) {
        case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
            return DeviceKind::discrete;
        case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
            return DeviceKind::integrated;
        case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU:
            return DeviceKind::virtual_gpu;
        case VK_PHYSICAL_DEVICE_TYPE_CPU:
            return DeviceKind::cpu;
        default:
            return DeviceKind::other;
    }
}

/// A family that computes but does not draw keeps clear of the desktop's work; copies are part of every compute family.
bool choose_queue(const Instance& instance, VkPhysicalDevice device, Traits& t) {
    std::uint32_t n = 0;
    instance.fn.GetPhysicalDeviceQueueFamilyProperties(device, &n, nullptr);
    std::vector<VkQueueFamilyProperties> families(n);
    instance.fn.GetPhysicalDeviceQueueFamilyProperties(device, &n, families.data());
    bool found = false;
    for (std::uint32_t i = 0; i < n; ++i) {
        if (!(families[i].queueFlags & VK_QUEUE_COMPUTE_BIT) || families[i].queueCount == 0) continue;
        const bool computes_only = !(families[i].queueFlags & VK_QUEUE_GRAPHICS_BIT);
        if (found && !computes_only) continue;
        t.queue_family = i;
        t.timestamp_bits = families[i].timestampValidBits;
        found = true;
        if (computes_only) break;
    }
    return found;
}

void read_memory(const Instance& instance, VkPhysicalDevice device, bool has_budget, Traits& t) {
    auto budget = start_of<VkPhysicalDeviceMemoryBudgetPropertiesEXT>(
        VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT);
    auto memory = start_of<VkPhysicalDeviceMemoryProperties2>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2);
    if (has_budget) memory.pNext = &budget;
    instance.fn.GetPhysicalDeviceMemoryProperties2(device, &memory);
    t.memory = memory.memoryProperties;
    std::uint32_t largest = VK_MAX_MEMORY_HEAPS;
    for (std::uint32_t i = 0; i < t.memory.memoryHeapCount; ++i) {
        if (!(t.memory.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT)) continue;
        if (largest == VK_MAX_MEMORY_HEAPS || t.memory.memoryHeaps[i].size > t.memory.memoryHeaps[largest].size)
            largest = i;
    }
    if (largest == VK_MAX_MEMORY_HEAPS) return;
    t.info.memory_bytes = t.info.free_bytes = t.memory.memoryHeaps[largest].size;
    if (has_budget)  // the budget counts what this process holds; a driver may let it be passed
        t.info.free_bytes =
            budget.heapBudget[largest] - std::min(budget.heapBudget[largest], budget.heapUsage[largest]);
    constexpr VkMemoryPropertyFlags seen = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT | VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT |
                                           VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    for (std::uint32_t i = 0; i < t.memory.memoryTypeCount; ++i)
        if (t.memory.memoryTypes[i].heapIndex == largest && (t.memory.memoryTypes[i].propertyFlags & seen) == seen)
            t.info.features |= kHostVisible;
}

bool has_coopmat_16(const Instance& instance, VkPhysicalDevice device) {
    const auto get = reinterpret_cast<PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR>(
        instance.get(instance.handle, "vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR"));
    std::uint32_t n = 0;
    if (!get || get(device, &n, nullptr) != VK_SUCCESS) return false;
    auto empty = start_of<VkCooperativeMatrixPropertiesKHR>(VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR);
    std::vector<VkCooperativeMatrixPropertiesKHR> list(n, empty);
    if (get(device, &n, list.data()) < 0) return false;
    list.resize(n);
    return std::any_of(list.begin(), list.end(), [](const VkCooperativeMatrixPropertiesKHR& p) {
        return p.MSize == 16 && p.NSize == 16 && p.KSize == 16 && p.AType == VK_COMPONENT_TYPE_FLOAT16_KHR &&
               p.BType == VK_COMPONENT_TYPE_FLOAT16_KHR && p.CType == VK_COMPONENT_TYPE_FLOAT32_KHR &&
               p.ResultType == VK_COMPONENT_TYPE_FLOAT32_KHR && p.scope == VK_SCOPE_SUBGROUP_KHR;
    });
}

void read_properties(const Instance& instance, VkPhysicalDevice device, Traits& t) {
    auto driver = start_of<VkPhysicalDeviceDriverProperties>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES);
    auto subgroup = start_of<VkPhysicalDeviceSubgroupProperties>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES);
    auto limits =
        start_of<VkPhysicalDeviceMaintenance3Properties>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES);
    auto buffers =
        start_of<VkPhysicalDeviceMaintenance4Properties>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_4_PROPERTIES);
    auto sizes = start_of<VkPhysicalDeviceSubgroupSizeControlProperties>(
        VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES);
    auto dot = start_of<VkPhysicalDeviceShaderIntegerDotProductProperties>(
        VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_PROPERTIES);
    void* head = nullptr;
    chain(head, driver);
    chain(head, subgroup);
    chain(head, limits);
    if (t.api >= VK_API_VERSION_1_3) chain(head, buffers);
    if (t.has_size_control_extension || t.api >= VK_API_VERSION_1_3) chain(head, sizes);
    if (t.has_integer_dot_extension || t.api >= VK_API_VERSION_1_3) chain(head, dot);
    auto all = start_of<VkPhysicalDeviceProperties2>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2);
    all.pNext = head;
    instance.fn.GetPhysicalDeviceProperties2(device, &all);
    t.info.driver = cat(driver.driverName, " ", driver.driverInfo);
    t.info.max_allocation = limits.maxMemoryAllocationSize;
    if (buffers.maxBufferSize)
        t.info.max_allocation = std::min<std::uint64_t>(t.info.max_allocation, buffers.maxBufferSize);
    t.info.subgroup = t.info.min_subgroup = t.info.max_subgroup = subgroup.subgroupSize;
    if (sizes.minSubgroupSize && (sizes.requiredSubgroupSizeStages & VK_SHADER_STAGE_COMPUTE_BIT)) {
        t.can_require_subgroup = true;
        t.info.min_subgroup = sizes.minSubgroupSize;
        t.info.max_subgroup = sizes.maxSubgroupSize;
    }
    t.slow_integer_dot = !dot.integerDotProduct4x8BitPackedSignedAccelerated;
    const VkPhysicalDeviceLimits& l = all.properties.limits;
    t.info.shared_bytes = l.maxComputeSharedMemorySize;
    t.info.max_invocations = l.maxComputeWorkGroupInvocations;
    std::copy_n(l.maxComputeWorkGroupCount, 3, t.max_groups);
    t.timestamp_ns = l.timestampPeriod;
    std::copy_n(all.properties.pipelineCacheUUID, VK_UUID_SIZE, t.cache_uuid);
    constexpr VkSubgroupFeatureFlags needed =
        VK_SUBGROUP_FEATURE_BASIC_BIT | VK_SUBGROUP_FEATURE_ARITHMETIC_BIT | VK_SUBGROUP_FEATURE_SHUFFLE_BIT;
    if ((subgroup.supportedOperations & needed) != needed || !(subgroup.supportedStages & VK_SHADER_STAGE_COMPUTE_BIT))
        t.info.refusal = "has no subgroup arithmetic";
}

void read_features(const Instance& instance, VkPhysicalDevice device, Traits& t) {
    auto v11 = start_of<VkPhysicalDeviceVulkan11Features>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES);
    auto v12 = start_of<VkPhysicalDeviceVulkan12Features>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES);
    auto sizes = start_of<VkPhysicalDeviceSubgroupSizeControlFeatures>(
        VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES);
    auto dot = start_of<VkPhysicalDeviceShaderIntegerDotProductFeatures>(
        VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES);
    auto coopmat = start_of<VkPhysicalDeviceCooperativeMatrixFeaturesKHR>(
        VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR);
    void* head = nullptr;
    chain(head, v11);
    chain(head, v12);
    if (t.has_size_control_extension || t.api >= VK_API_VERSION_1_3) chain(head, sizes);
    if (t.has_integer_dot_extension || t.api >= VK_API_VERSION_1_3) chain(head, dot);
    if (t.has_coopmat_extension) chain(head, coopmat);
    auto all = start_of<VkPhysicalDeviceFeatures2>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2);
    all.pNext = head;
    instance.fn.GetPhysicalDeviceFeatures2(device, &all);
    t.storage16 = v11.storageBuffer16BitAccess;
    t.storage8 = v12.storageBuffer8BitAccess;
    t.int8 = v12.shaderInt8;
    t.int16 = all.features.shaderInt16;
    t.memory_model = v12.vulkanMemoryModel && v12.vulkanMemoryModelDeviceScope;
    t.full_subgroups = sizes.computeFullSubgroups;
    if (v12.shaderFloat16 && t.storage16) t.info.features |= kFloat16;
    if (dot.shaderIntegerDotProduct) {
        if (!t.slow_integer_dot) t.info.features |= kIntegerDot;
    } else {
        t.slow_integer_dot = false;
    }
    if (sizes.subgroupSizeControl && t.can_require_subgroup) t.info.features |= kSubgroupSize;
    if (coopmat.cooperativeMatrix && t.memory_model && (t.info.features & kFloat16) && has_coopmat_16(instance, device))
        t.info.features |= kCoopmat;
    if (t.timestamp_bits && t.timestamp_ns > 0) t.info.features |= kTimestamps;
    if (!v12.bufferDeviceAddress) t.info.refusal = "has no buffer addresses (bufferDeviceAddress)";
}

}  // namespace

std::string_view feature_name(std::uint32_t index) {
    constexpr std::string_view names[] = {"float16",       "integer-dot",  "coopmat",
                                          "subgroup-size", "host-visible", "timestamps"};
    return index < std::size(names) ? names[index] : std::string_view();
}

Traits describe(const Instance& instance, VkPhysicalDevice device, std::uint32_t index) {
    Traits t;
    VkPhysicalDeviceProperties basic = {};
    instance.fn.GetPhysicalDeviceProperties(device, &basic);
    t.api = basic.apiVersion;
    t.vendor_id = basic.vendorID;
    t.device_id = basic.deviceID;
    t.driver_version = basic.driverVersion;
    t.info.index = index;
    t.info.name = basic.deviceName;
    t.info.kind = kind_of(basic.deviceType);
    if (t.api < VK_API_VERSION_1_2) {
        t.info.refusal = cat("needs Vulkan 1.2, has ", VK_API_VERSION_MAJOR(t.api), ".", VK_API_VERSION_MINOR(t.api));
        return t;
    }
    const std::set<std::string> extensions = extensions_of(instance, device);
    t.has_coopmat_extension = extensions.count(VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME);
    t.has_size_control_extension = extensions.count(VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME);
    t.has_integer_dot_extension = extensions.count(VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME);
    const bool has_queue = choose_queue(instance, device, t);
    read_memory(instance, device, extensions.count(VK_EXT_MEMORY_BUDGET_EXTENSION_NAME), t);
    read_properties(instance, device, t);
    read_features(instance, device, t);
    if (!has_queue) t.info.refusal = "has no compute queue";
    return t;
}

}  // namespace quern::vulkan
