// SPDX-License-Identifier: Apache-2.0
#include "kernels/vulkan/device.h"

#include "tests/vulkan/support.h"

namespace quern::vulkan::test {
namespace {

class VulkanDevice : public DeviceTest {};

struct CopyPush {
    std::uint64_t from, to;
    std::uint32_t n, flip;
};

TEST_F(VulkanDevice, RunsAKernel) {
    std::vector<std::uint32_t> words(4 * 1000);
    for (std::uint32_t i = 0; i < words.size(); ++i) words[i] = i * 2654435761u;
    const Buffer from = upload(words), to = buffer(words.size() * 4);
    dispatch(kernel("copy", {64, 3}), CopyPush{from.address(), to.address(), 1000, 0xff00u}, {(1000 + 191) / 192});
    for (std::uint32_t& w : words) w ^= 0xff00u;
    EXPECT_EQ(download<std::uint32_t>(to, words.size()), words);
}

}  // namespace
}  // namespace quern::vulkan::test
