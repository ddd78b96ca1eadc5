// SPDX-License-Identifier: Apache-2.0
// The loader's library, an instance with its message counter, and what is read off a physical device.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/vulkan/device.h"
#include "kernels/vulkan/vk.h"

namespace quern::vulkan {

using Log = std::function<void(const std::string&)>;

/// Neither copied nor moved: the driver keeps its address for messages.
class Instance {
public:
    /// Errors (unsupported): no loader, one too old, no driver, no validation layer where it is asked for.
    static Result<std::unique_ptr<Instance>> create(bool validation, Log log);
    ~Instance();
    Instance(const Instance&) = delete;
    Instance& operator=(const Instance&) = delete;

    VkInstance handle = VK_NULL_HANDLE;
    PFN_vkGetInstanceProcAddr get = nullptr;
    InstanceFunctions fn;
    std::vector<VkPhysicalDevice> devices;
    std::atomic<std::uint32_t> n_messages{0};
    Log log;

private:
    Instance() = default;
    Status start(bool validation);
    void* library_ = nullptr;
    VkDebugUtilsMessengerEXT messenger_ = VK_NULL_HANDLE;
};

/// What describe() finds out beside the public description.
struct Traits {
    DeviceInfo info;
    std::uint32_t api = 0, vendor_id = 0, device_id = 0, driver_version = 0;
    std::uint8_t cache_uuid[VK_UUID_SIZE] = {};
    std::uint32_t queue_family = 0;
    std::uint32_t timestamp_bits = 0;
    float timestamp_ns = 0;  // of one tick
    std::uint32_t max_groups[3] = {};
    bool slow_integer_dot = false;  // there, but the device does not call it fast
    bool storage8 = false, storage16 = false, int8 = false, int16 = false, memory_model = false, full_subgroups = false,
         can_require_subgroup = false;
    bool has_coopmat_extension = false, has_size_control_extension = false, has_integer_dot_extension = false;
    VkPhysicalDeviceMemoryProperties memory = {};
};
Traits describe(const Instance& instance, VkPhysicalDevice device, std::uint32_t index);

}  // namespace quern::vulkan
