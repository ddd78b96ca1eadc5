// SPDX-License-Identifier: Apache-2.0
#include "kernels/vulkan/instance.h"

#include <dlfcn.h>

#include <cstring>

#include "formats/text.h"

namespace quern::vulkan {
namespace {

constexpr const char* kValidationLayer = "VK_LAYER_KHRONOS_validation";

VKAPI_ATTR VkBool32 VKAPI_CALL on_message(VkDebugUtilsMessageSeverityFlagBitsEXT, VkDebugUtilsMessageTypeFlagsEXT,
                                          const VkDebugUtilsMessengerCallbackDataEXT* data, void* user) {
    auto* instance = static_cast<Instance*>(user);
    ++instance->n_messages;
    if (instance->log) instance->log(cat("validation: ", data->pMessage ? data->pMessage : ""));
    return VK_FALSE;
}

bool has_layer(const GlobalFunctions& global, std::string_view name) {
    std::uint32_t n = 0;
    if (global.EnumerateInstanceLayerProperties(&n, nullptr) != VK_SUCCESS) return false;
    std::vector<VkLayerProperties> layers(n);
    if (global.EnumerateInstanceLayerProperties(&n, layers.data()) < 0) return false;
    layers.resize(n);
    for (const VkLayerProperties& layer : layers)
        if (name == layer.layerName) return true;
    return false;
}

}  // namespace

std::string_view result_name(VkResult result) {
    switch (result) {
        case VK_ERROR_OUT_OF_HOST_MEMORY:
            return "VK_ERROR_OUT_OF_HOST_MEMORY";
        case VK_ERROR_OUT_OF_DEVICE_MEMORY:
            return "VK_ERROR_OUT_OF_DEVICE_MEMORY";
        case VK_ERROR_INITIALIZATION_FAILED:
            return "VK_ERROR_INITIALIZATION_FAILED";
        case VK_ERROR_DEVICE_LOST:
            return "VK_ERROR_DEVICE_LOST";
        case VK_ERROR_MEMORY_MAP_FAILED:
            return "VK_ERROR_MEMORY_MAP_FAILED";
        case VK_ERROR_LAYER_NOT_PRESENT:
            return "VK_ERROR_LAYER_NOT_PRESENT";
        case VK_ERROR_EXTENSION_NOT_PRESENT:
            return "VK_ERROR_EXTENSION_NOT_PRESENT";
        case VK_ERROR_FEATURE_NOT_PRESENT:
            return "VK_ERROR_FEATURE_NOT_PRESENT";
        case VK_ERROR_INCOMPATIBLE_DRIVER:
            return "VK_ERROR_INCOMPATIBLE_DRIVER";
        case VK_ERROR_TOO_MANY_OBJECTS:
            return "VK_ERROR_TOO_MANY_OBJECTS";
        case VK_ERROR_INVALID_EXTERNAL_HANDLE:
            return "VK_ERROR_INVALID_EXTERNAL_HANDLE";
        case VK_ERROR_INVALID_SHADER_NV:
            return "VK_ERROR_INVALID_SHADER_NV";
        case VK_TIMEOUT:
            return "VK_TIMEOUT";
        case VK_NOT_READY:
            return "VK_NOT_READY";
        default:
            return "an unknown VkResult";
    }
}

Result<std::unique_ptr<Instance>> Instance::create(bool validation, Log log) {
    std::unique_ptr<Instance> out(new Instance);
    out->log = std::move(log);
    if (Status s = out->start(validation); !s) return s.error();
    return out;
}

Status Instance::start(bool validation) {
    // The linker is not asked: one binary runs with and without a loader.
    library_ = ::dlopen("libvulkan.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library_) library_ = ::dlopen("libvulkan.so", RTLD_NOW | RTLD_LOCAL);
    if (!library_)
        return Error{Errc::unsupported,
                     "no Vulkan loader (libvulkan.so.1): install the package libvulkan1 and a driver"};
    get = reinterpret_cast<PFN_vkGetInstanceProcAddr>(::dlsym(library_, "vkGetInstanceProcAddr"));
    if (!get)
        return Error{Errc::unsupported, "the Vulkan loader has no vkGetInstanceProcAddr: is libvulkan.so.1 damaged?"};
    GlobalFunctions global;
    std::string missing;
#define QUERN_VK_LOAD(name) \
    if (!(global.name = reinterpret_cast<PFN_vk##name>(get(nullptr, "vk" #name)))) missing = "vk" #name;
    QUERN_VK_GLOBAL(QUERN_VK_LOAD)
#undef QUERN_VK_LOAD
    std::uint32_t version = 0;
    if (!missing.empty() || global.EnumerateInstanceVersion(&version) != VK_SUCCESS || version < VK_API_VERSION_1_1)
        return Error{Errc::unsupported, "the Vulkan loader is too old (1.0): update the package libvulkan1"};
    if (validation && !has_layer(global, kValidationLayer))
        return Error{Errc::unsupported,
                     cat("the layer ", kValidationLayer, " is not installed: package vulkan-validationlayers")};

    auto messages =
        start_of<VkDebugUtilsMessengerCreateInfoEXT>(VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT);
    messages.messageSeverity =
        VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT;
    messages.messageType =
        VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_TYPE_PERFORMANCE_BIT_EXT;
    messages.pfnUserCallback = on_message;
    messages.pUserData = this;
    const char* extension = VK_EXT_DEBUG_UTILS_EXTENSION_NAME;
    auto app = start_of<VkApplicationInfo>(VK_STRUCTURE_TYPE_APPLICATION_INFO);
    app.pApplicationName = app.pEngineName = "quern";
    app.apiVersion = VK_API_VERSION_1_3;
    auto info = start_of<VkInstanceCreateInfo>(VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO);
    info.pApplicationInfo = &app;
    if (validation) {
        info.pNext = &messages;
        info.enabledLayerCount = info.enabledExtensionCount = 1;
        info.ppEnabledLayerNames = &kValidationLayer;
        info.ppEnabledExtensionNames = &extension;
    }
    VkResult r = global.CreateInstance(&info, nullptr, &handle);
    if (r != VK_SUCCESS) {
        handle = VK_NULL_HANDLE;
        return Error{Errc::unsupported,
                     cat("no Vulkan driver can be used (", result_name(r), "): install one for the GPU")};
    }
#define QUERN_VK_LOAD(name) \
    if (!(fn.name = reinterpret_cast<PFN_vk##name>(get(handle, "vk" #name)))) missing = "vk" #name;
    QUERN_VK_INSTANCE(QUERN_VK_LOAD)
#undef QUERN_VK_LOAD
    if (!missing.empty())
        return Error{Errc::unsupported, cat("the Vulkan loader has no ", missing, ": update the package libvulkan1")};
    if (validation) {
        const auto create =
            reinterpret_cast<PFN_vkCreateDebugUtilsMessengerEXT>(get(handle, "vkCreateDebugUtilsMessengerEXT"));
        if (!create || create(handle, &messages, nullptr, &messenger_) != VK_SUCCESS)
            return Error{Errc::unsupported, "the validation layer takes no message callback"};
    }
    std::uint32_t n = 0;
    r = fn.EnumeratePhysicalDevices(handle, &n, nullptr);
    devices.resize(r == VK_SUCCESS ? n : 0);
    if (!devices.empty()) r = fn.EnumeratePhysicalDevices(handle, &n, devices.data());
    if (r < 0 || n == 0)
        return Error{Errc::unsupported,
                     cat("the Vulkan loader shows no device", r < 0 ? cat(" (", result_name(r), ")") : "",
                         ": install a driver for the GPU")};
    devices.resize(n);
    return {};
}

Instance::~Instance() {
    if (messenger_) {
        const auto destroy =
            reinterpret_cast<PFN_vkDestroyDebugUtilsMessengerEXT>(get(handle, "vkDestroyDebugUtilsMessengerEXT"));
        if (destroy) destroy(handle, messenger_, nullptr);
    }
    if (handle && fn.DestroyInstance) fn.DestroyInstance(handle, nullptr);
    if (library_) ::dlclose(library_);
}

Result<std::vector<DeviceInfo>> list_devices() {
    Result<std::unique_ptr<Instance>> instance = Instance::create(false, {});
    if (!instance) return instance.error();
    std::vector<DeviceInfo> out;
    for (std::uint32_t i = 0; i < (*instance)->devices.size(); ++i)
        out.push_back(describe(**instance, (*instance)->devices[i], i).info);
    return out;
}

}  // namespace quern::vulkan
