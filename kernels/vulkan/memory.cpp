// SPDX-License-Identifier: Apache-2.0
// Buffers, and copies between them and the host.
#include <algorithm>
#include <cstring>

#include "formats/text.h"
#include "kernels/vulkan/core.h"

namespace quern::vulkan {
namespace {

constexpr VkMemoryPropertyFlags kDeviceLocal = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT;
constexpr VkMemoryPropertyFlags kSeen = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
constexpr VkMemoryPropertyFlags kCached = VK_MEMORY_PROPERTY_HOST_CACHED_BIT;

/// What is written once and read at every step should lie with the device, be it through a small window (256 MiB on
/// many cards, which other programs use too).
constexpr std::size_t kSmallUpload = 16u << 20;

/// Property sets in the order in which to try them.
std::vector<VkMemoryPropertyFlags> preferences(MemoryKind kind, std::size_t bytes, bool host_visible) {
    switch (kind) {
        case MemoryKind::device:
            if (host_visible) return {kDeviceLocal | kSeen, kDeviceLocal};
            return {kDeviceLocal};
        case MemoryKind::upload:
            if (bytes <= kSmallUpload) return {kDeviceLocal | kSeen, kSeen};
            return {kSeen};
        case MemoryKind::readback:
            break;
    }
    return {kSeen | kCached, kSeen};
}

}  // namespace

Result<Allocation> Core::allocate(std::size_t bytes, MemoryKind kind, const std::string& what) {
    const std::string size = cat(what, ": ", bytes, " bytes on ", quoted(traits.info.name));
    if (bytes == 0) return Error{Errc::invalid_argument, cat(what, ": a buffer of no bytes")};
    if (bytes > traits.info.max_allocation)
        return Error{Errc::out_of_memory,
                     cat(size, ": one buffer may have ", traits.info.max_allocation, "; split it")};
    if (++n_allocations == options.faults.allocation)
        return Error{Errc::out_of_memory, cat(size, ": refused as the test asks (", held.load(), " are held)")};

    auto info = start_of<VkBufferCreateInfo>(VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO);
    info.size = (bytes + 15) / 16 * 16;  // kernels read 16 bytes at a time
    info.usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                 VK_BUFFER_USAGE_TRANSFER_DST_BIT | VK_BUFFER_USAGE_INDIRECT_BUFFER_BIT |
                 VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT;
    Allocation a;
    VkResult r = fn.CreateBuffer(device, &info, nullptr, &a.buffer);
    if (r != VK_SUCCESS) return Error{Errc::out_of_memory, cat(size, ": ", result_name(r))};
    VkMemoryRequirements needs = {};
    fn.GetBufferMemoryRequirements(device, a.buffer, &needs);

    auto flags = start_of<VkMemoryAllocateFlagsInfo>(VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO);
    flags.flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT;
    auto memory = start_of<VkMemoryAllocateInfo>(VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO);
    memory.pNext = &flags;
    memory.allocationSize = needs.size;
    VkMemoryPropertyFlags got = 0;
    r = VK_ERROR_OUT_OF_DEVICE_MEMORY;
    for (const VkMemoryPropertyFlags wanted : preferences(kind, bytes, (features & kHostVisible) != 0)) {
        // The types are in the driver's order of preference; a heap that is too small is not asked.
        for (std::uint32_t i = 0; i < traits.memory.memoryTypeCount && !a.memory; ++i) {
            const VkMemoryType& type = traits.memory.memoryTypes[i];
            if (!(needs.memoryTypeBits >> i & 1u) || (type.propertyFlags & wanted) != wanted) continue;
            if (traits.memory.memoryHeaps[type.heapIndex].size < needs.size) continue;
            if (type.propertyFlags & (VK_MEMORY_PROPERTY_PROTECTED_BIT | VK_MEMORY_PROPERTY_DEVICE_COHERENT_BIT_AMD))
                continue;
            memory.memoryTypeIndex = i;
            r = fn.AllocateMemory(device, &memory, nullptr, &a.memory);
            if (r != VK_SUCCESS) a.memory = VK_NULL_HANDLE;
            got = type.propertyFlags;
        }
        if (a.memory) break;
    }
    void* host = nullptr;
    const bool mapped = (got & kSeen) == kSeen && (kind != MemoryKind::device || (features & kHostVisible));
    if (a.memory && (r = fn.BindBufferMemory(device, a.buffer, a.memory, 0)) == VK_SUCCESS && mapped)
        r = fn.MapMemory(device, a.memory, 0, VK_WHOLE_SIZE, 0, &host);
    if (r != VK_SUCCESS) {
        release(a);
        return Error{Errc::out_of_memory,
                     cat(size, ": ", result_name(r), " (", held.load(), " bytes are held; the device has ",
                         traits.info.memory_bytes, "): offload fewer layers or shorten the context")};
    }
    a.host = static_cast<std::byte*>(host);
    a.bytes = bytes;
    a.readable = (got & kCached) != 0;
    held += bytes;
    auto address = start_of<VkBufferDeviceAddressInfo>(VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO);
    address.buffer = a.buffer;
    a.address = fn.GetBufferDeviceAddress(device, &address);
    if (a.address == 0 || a.address % 256 != 0) {
        release(a);
        return Error{Errc::unsupported, cat(size, ": the driver gives an address that is no multiple of 256")};
    }
    return a;
}

void Core::release(Allocation& a) {
    if (a.buffer) fn.DestroyBuffer(device, a.buffer, nullptr);
    if (a.memory) fn.FreeMemory(device, a.memory, nullptr);  // unmaps too
    held -= a.bytes;
    a = {};
}

Buffer::Buffer(Buffer&& o) noexcept { *this = std::move(o); }
Buffer::~Buffer() { release(); }

Buffer& Buffer::operator=(Buffer&& o) noexcept {
    if (this == &o) return *this;
    release();
    device_ = std::exchange(o.device_, nullptr);
    buffer_ = std::exchange(o.buffer_, 0);
    memory_ = std::exchange(o.memory_, 0);
    address_ = std::exchange(o.address_, 0);
    size_ = std::exchange(o.size_, 0);
    readable_ = o.readable_;
    host_ = std::exchange(o.host_, nullptr);
    return *this;
}

void Buffer::release() noexcept {
    if (!device_) return;
    Core& core = *device_->impl_;
    if (core.copies_pending) {
        const std::lock_guard lock(core.queue_mutex);
        (void)core.drain();  // a device that is lost copies nothing
    }
    Allocation a = {
        handle_of<VkBuffer>(buffer_), handle_of<VkDeviceMemory>(memory_), address_, size_, host_, readable_};
    core.release(a);
    device_ = nullptr;
}

Result<Buffer> Device::allocate(std::size_t bytes, MemoryKind kind, const std::string& what) {
    Result<Allocation> a = impl_->allocate(bytes, kind, what);
    if (!a) return a.error();
    Buffer out;
    out.device_ = this;
    out.buffer_ = number_of(a->buffer);
    out.memory_ = number_of(a->memory);
    out.address_ = a->address;
    out.size_ = bytes;
    out.host_ = a->host;
    out.readable_ = a->readable;
    return out;
}

}  // namespace quern::vulkan
