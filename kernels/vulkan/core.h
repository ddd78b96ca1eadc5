// SPDX-License-Identifier: Apache-2.0
// What Device, Buffer and Commands share behind their interface.
#pragma once

#include <array>
#include <atomic>
#include <map>
#include <mutex>
#include <tuple>

#include "kernels/vulkan/instance.h"

namespace quern::vulkan {

constexpr std::uint32_t kMaxPush = 128, kMaxTimestamps = 1024;
constexpr std::size_t kStagingBytes = 16u << 20;  // of one of two parts

struct Kernel {
    VkPipeline pipeline = VK_NULL_HANDLE;
    bool silent = false;  // Faults::kernel
};

template <class Handle>
std::uint64_t number_of(Handle handle) {
    return reinterpret_cast<std::uint64_t>(handle);
}
template <class Handle>
Handle handle_of(std::uint64_t number) {
    return reinterpret_cast<Handle>(number);
}

/// A command buffer with a pool of its own, so that any thread may record while another does.
struct CommandBuffer {
    VkCommandPool pool = VK_NULL_HANDLE;
    VkCommandBuffer handle = VK_NULL_HANDLE;
};

/// A raw allocation, as Buffer keeps it.
struct Allocation {
    VkBuffer buffer = VK_NULL_HANDLE;
    VkDeviceMemory memory = VK_NULL_HANDLE;
    std::uint64_t address = 0;
    std::size_t bytes = 0;
    std::byte* host = nullptr;
    bool readable = false;  // by the host at the speed of memory
};

/// A part of the staging memory with the copy that uses it.
struct StagingSlot {
    Allocation memory;
    CommandBuffer commands;
    VkFence fence = VK_NULL_HANDLE;
    bool pending = false;  // submitted, not waited for
};

struct Core {
    using KernelKey = std::tuple<std::string, std::vector<std::uint32_t>, std::uint32_t>;

    ~Core();
    Status start();
    void log(const std::string& line) const {
        if (options.log) options.log(line);
    }

    // memory.cpp
    Result<Allocation> allocate(std::size_t bytes, MemoryKind kind, const std::string& what);
    void release(Allocation& a);

    // submit.cpp; those that use the queue are called with `queue_mutex` held
    /// At most 16, each by itself, in one call.
    Status submit(std::span<const VkCommandBuffer> commands, VkFence signal, const std::string& what);
    Status wait(VkFence signal, const std::string& what);
    Result<CommandBuffer> make_commands(const std::string& what) const;
    void release(CommandBuffer& c) const;
    /// Memory written by earlier commands and by the host is seen by what follows.
    void barrier(VkCommandBuffer commands) const;
    /// ... and by the host once the commands have run.
    void barrier_to_host(VkCommandBuffer commands) const;
    /// A staging part whose last copy has ended.
    Result<StagingSlot*> next_slot(const std::string& what);
    Status copy(StagingSlot& slot, VkBuffer from, std::size_t from_offset, VkBuffer to, std::size_t to_offset,
                std::size_t bytes, const std::string& what);
    Status drain();  // waits for copies under way
    Error lost_error(const std::string& what) const;

    /// Of two timestamps; a counter that has wrapped still gives the difference.
    double seconds_between(std::uint64_t from, std::uint64_t to) const {
        const std::uint32_t bits = traits.timestamp_bits;
        const std::uint64_t mask = bits >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << bits) - 1;
        return static_cast<double>((to - from) & mask) * static_cast<double>(traits.timestamp_ns) * 1e-9;
    }

    // cache.cpp
    void load_cache();
    void save_cache();

    DeviceOptions options;
    std::unique_ptr<Instance> instance;
    VkPhysicalDevice physical = VK_NULL_HANDLE;
    Traits traits;
    std::atomic<std::uint32_t> features{0};
    VkDevice device = VK_NULL_HANDLE;
    DeviceFunctions fn;
    VkQueue queue = VK_NULL_HANDLE;
    VkPipelineLayout layout = VK_NULL_HANDLE;

    std::mutex kernels_mutex;
    std::map<KernelKey, std::unique_ptr<Kernel>> kernels;
    VkPipelineCache cache = VK_NULL_HANDLE;
    std::size_t cache_saved_bytes = 0;  // what the file holds

    std::atomic<std::uint64_t> held{0};
    std::atomic<std::uint32_t> n_allocations{0};

    std::mutex queue_mutex;  // the queue, the fence, the staging slots
    VkFence fence = VK_NULL_HANDLE;
    std::uint32_t n_submits = 0;
    std::atomic<bool> lost{false};
    std::string lost_in;  // what ran when it was lost
    std::array<StagingSlot, 2> slots;
    std::size_t slot_turn = 0;
    std::atomic<bool> copies_pending{false};
};

struct Device::Impl : Core {};

struct Commands::Impl {
    ~Impl();
    void note(Error error) {
        if (problem.ok()) problem = std::move(error);
    }
    /// The pipeline and its push constants; false where they cannot be.
    bool bind(const Kernel& kernel, std::span<const std::byte> push);

    Core* core = nullptr;
    CommandBuffer commands;
    VkQueryPool queries = VK_NULL_HANDLE;
    std::uint32_t n_timestamps = 0;
    VkPipeline bound = VK_NULL_HANDLE;
    bool finished = false, has_run = false;
    Status problem;  // the first one; finish() tells it
};

// shaders/: made by the build.
std::span<const std::uint32_t> module_words(std::size_t index);

}  // namespace quern::vulkan
