// SPDX-License-Identifier: Apache-2.0
// The pipeline cache on disk.
#include "formats/text.h"
#include "kernels/vulkan/core.h"

namespace quern::vulkan {

void Core::load_cache() {
    auto info = start_of<VkPipelineCacheCreateInfo>(VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO);
    if (fn.CreatePipelineCache(device, &info, nullptr, &cache) != VK_SUCCESS) cache = VK_NULL_HANDLE;
}

void Core::save_cache() {}

}  // namespace quern::vulkan
