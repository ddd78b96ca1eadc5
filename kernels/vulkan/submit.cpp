// SPDX-License-Identifier: Apache-2.0
// The queue: runs of recorded commands, copies through staging memory, what happens when a device is lost.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>

#include "formats/text.h"
#include "kernels/vulkan/core.h"

namespace quern::vulkan {
namespace {

constexpr std::size_t kMostSubmits = 16;  // in one call
constexpr int kSpinMs = 4;                // reckoned, not measured: the token of a 7B model on a large card

}  // namespace

Error Core::lost_error(const std::string& what) const {
    return {Errc::device_lost, cat(what, ": the device ", quoted(traits.info.name), " was lost during ", lost_in,
                                   ": a driver reset or a hang (the system log may say which); open it again")};
}

Status Core::submit(std::span<const VkCommandBuffer> commands, VkFence signal, const std::string& what) {
    if (lost) return lost_error(what);
    // One call for many: it costs the host as much as several dispatches. Each stays a submission by itself.
    std::array<VkSubmitInfo, kMostSubmits> infos;
    bool fault = false;
    for (std::size_t i = 0; i < commands.size(); ++i) {
        infos[i] = start_of<VkSubmitInfo>(VK_STRUCTURE_TYPE_SUBMIT_INFO);
        infos[i].commandBufferCount = 1;
        infos[i].pCommandBuffers = &commands[i];
        fault = fault || ++n_submits == options.faults.submit;
    }
    const auto n = static_cast<std::uint32_t>(commands.size());
    const VkResult r = fault ? VK_ERROR_DEVICE_LOST : fn.QueueSubmit(queue, n, infos.data(), signal);
    if (r == VK_SUCCESS) return {};
    // Nothing was queued. Out of memory can be met by waiting for less; everything else leaves the device in no known
    // state.
    if (r == VK_ERROR_OUT_OF_HOST_MEMORY || r == VK_ERROR_OUT_OF_DEVICE_MEMORY)
        return Error{Errc::out_of_memory,
                     cat(what, ": the driver of ", quoted(traits.info.name), " has no memory to submit")};
    lost = true;
    lost_in = what;
    return lost_error(what);
}

Status Core::wait(VkFence signal, const std::string& what) {
    if (lost) return lost_error(what);
    VkResult r = VK_TIMEOUT;
    // A sleeping thread wakes tens of microseconds late, which a fast card's token of a millisecond would show. Other
    // devices share power or cores with this thread, so there it sleeps at once.
    if (traits.info.kind == DeviceKind::discrete) {
        const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(kSpinMs);
        do r = fn.WaitForFences(device, 1, &signal, VK_TRUE, 0);
        while (r == VK_TIMEOUT && std::chrono::steady_clock::now() < until);
    }
    // No limit of time: what hangs is ended by the driver's watchdog, which gives the device up.
    if (r == VK_TIMEOUT) r = fn.WaitForFences(device, 1, &signal, VK_TRUE, UINT64_MAX);
    if (r == VK_SUCCESS && fn.ResetFences(device, 1, &signal) == VK_SUCCESS) return {};
    lost = true;
    lost_in = what;
    return lost_error(what);
}

Result<CommandBuffer> Core::make_commands(const std::string& what) const {
    CommandBuffer out;
    auto pool = start_of<VkCommandPoolCreateInfo>(VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO);
    pool.queueFamilyIndex = traits.queue_family;
    VkResult r = fn.CreateCommandPool(device, &pool, nullptr, &out.pool);
    if (r == VK_SUCCESS) {
        auto info = start_of<VkCommandBufferAllocateInfo>(VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO);
        info.commandPool = out.pool;
        info.commandBufferCount = 1;
        r = fn.AllocateCommandBuffers(device, &info, &out.handle);
    }
    if (r == VK_SUCCESS) return out;
    release(out);
    return Error{Errc::out_of_memory, cat(what, ": no command buffer (", result_name(r), ")")};
}

void Core::release(CommandBuffer& c) const {
    if (c.pool) fn.DestroyCommandPool(device, c.pool, nullptr);  // its command buffer too
    c = {};
}

void Core::barrier(VkCommandBuffer commands) const {
    auto memory = start_of<VkMemoryBarrier>(VK_STRUCTURE_TYPE_MEMORY_BARRIER);
    memory.srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT;
    memory.dstAccessMask = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_READ_BIT |
                           VK_ACCESS_TRANSFER_WRITE_BIT | VK_ACCESS_INDIRECT_COMMAND_READ_BIT;
    constexpr VkPipelineStageFlags work = VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT;
    fn.CmdPipelineBarrier(commands, work, work | VK_PIPELINE_STAGE_DRAW_INDIRECT_BIT, 0, 1, &memory, 0, nullptr, 0,
                          nullptr);
}

void Core::barrier_to_host(VkCommandBuffer commands) const {
    auto memory = start_of<VkMemoryBarrier>(VK_STRUCTURE_TYPE_MEMORY_BARRIER);
    memory.srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT;
    memory.dstAccessMask = VK_ACCESS_HOST_READ_BIT;
    fn.CmdPipelineBarrier(commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT,
                          VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &memory, 0, nullptr, 0, nullptr);
}

Result<StagingSlot*> Core::next_slot(const std::string& what) {
    StagingSlot& slot = slots[slot_turn++ % slots.size()];
    if (slot.pending) {
        slot.pending = false;
        if (Status s = wait(slot.fence, what); !s) return s.error();
    }
    if (!slot.memory.buffer) {
        Result<Allocation> memory = allocate(kStagingBytes, MemoryKind::readback, "staging memory");
        if (!memory) return memory.error();
        slot.memory = *memory;
    }
    if (!slot.commands.pool) {
        Result<CommandBuffer> commands = make_commands(what);
        if (!commands) return commands.error();
        slot.commands = *commands;
    }
    auto info = start_of<VkFenceCreateInfo>(VK_STRUCTURE_TYPE_FENCE_CREATE_INFO);
    if (!slot.fence && fn.CreateFence(device, &info, nullptr, &slot.fence) != VK_SUCCESS) {
        slot.fence = VK_NULL_HANDLE;
        return Error{Errc::out_of_memory, cat(what, ": no fence")};
    }
    return &slot;
}

Status Core::copy(StagingSlot& slot, VkBuffer from, std::size_t from_offset, VkBuffer to, std::size_t to_offset,
                  std::size_t bytes, const std::string& what) {
    auto begin = start_of<VkCommandBufferBeginInfo>(VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO);
    begin.flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT;
    VkResult r = fn.ResetCommandPool(device, slot.commands.pool, 0);
    if (r == VK_SUCCESS) r = fn.BeginCommandBuffer(slot.commands.handle, &begin);
    if (r == VK_SUCCESS) {
        const VkBufferCopy region = {from_offset, to_offset, bytes};
        barrier(slot.commands.handle);
        fn.CmdCopyBuffer(slot.commands.handle, from, to, 1, &region);
        barrier_to_host(slot.commands.handle);
        r = fn.EndCommandBuffer(slot.commands.handle);
    }
    if (r != VK_SUCCESS)
        return Error{Errc::out_of_memory, cat(what, ": no memory to record a copy (", result_name(r), ")")};
    if (Status s = submit({&slot.commands.handle, 1}, slot.fence, what); !s) return s;
    slot.pending = true;
    copies_pending = true;
    return {};
}

Status Core::drain() {
    Status out;
    if (lost) fn.DeviceWaitIdle(device);  // its memory is about to go
    for (StagingSlot& slot : slots)
        if (std::exchange(slot.pending, false))
            if (Status s = wait(slot.fence, "an upload"); !s) out = s;
    copies_pending = false;
    return out;
}

namespace {

Status check_range(const char* doing, std::size_t size, std::size_t offset, std::size_t bytes) {
    if (offset <= size && bytes <= size - offset) return {};
    return Error{Errc::invalid_argument, cat(doing, ": ", bytes, " bytes at ", offset, " pass the buffer's ", size)};
}

}  // namespace

Status Device::write(const Buffer& to, std::size_t offset, std::span<const std::byte> bytes) {
    if (Status s = check_range("a write", to.size_, offset, bytes.size()); !s) return s;
    if (bytes.empty()) return {};
    Core& core = *impl_;
    const std::lock_guard lock(core.queue_mutex);
    if (core.lost) return core.lost_error("a write");
    if (to.host_) {
        // Copies under way may have this buffer as their target; they come first.
        if (Status s = core.drain(); !s) return s;
        std::memcpy(to.host_ + offset, bytes.data(), bytes.size());
        return {};
    }
    // The last copies are left under way: whatever is submitted next waits for them, and so does the buffer's release.
    for (std::size_t done = 0; done < bytes.size();) {
        const std::size_t n = std::min(kStagingBytes, bytes.size() - done);
        Result<StagingSlot*> slot = core.next_slot("a write");
        if (!slot) return slot.error();
        std::memcpy((*slot)->memory.host, bytes.data() + done, n);
        if (Status s = core.copy(**slot, (*slot)->memory.buffer, 0, handle_of<VkBuffer>(to.buffer_), offset + done, n,
                                 "a write");
            !s)
            return s;
        done += n;
    }
    return {};
}

Status Device::read(const Buffer& from, std::size_t offset, std::span<std::byte> bytes) {
    if (Status s = check_range("a read", from.size_, offset, bytes.size()); !s) return s;
    if (bytes.empty()) return {};
    Core& core = *impl_;
    const std::lock_guard lock(core.queue_mutex);
    if (core.lost) return core.lost_error("a read");
    if (Status s = core.drain(); !s) return s;
    if (from.host_ && (from.readable_ || bytes.size() <= 4096)) {
        std::memcpy(bytes.data(), from.host_ + offset, bytes.size());
        return {};
    }
    // While one part is read by the host, the next is on its way.
    StagingSlot* under_way = nullptr;
    std::size_t done = 0, asked = 0, last = 0;
    while (done < bytes.size()) {
        StagingSlot* next = nullptr;
        const std::size_t n = std::min(kStagingBytes, bytes.size() - asked);
        if (n) {
            Result<StagingSlot*> slot = core.next_slot("a read");
            if (!slot) return slot.error();
            next = *slot;
            if (Status s = core.copy(*next, handle_of<VkBuffer>(from.buffer_), offset + asked, next->memory.buffer, 0,
                                     n, "a read");
                !s)
                return s;
            asked += n;
        }
        if (under_way) {
            under_way->pending = false;
            if (Status s = core.wait(under_way->fence, "a read"); !s) return s;
            std::memcpy(bytes.data() + done, under_way->memory.host, last);
            done += last;
        }
        under_way = next;
        last = n;
    }
    return {};
}

Status Device::run(std::span<Commands* const> commands, const std::string& what) {
    Core& core = *impl_;
    const std::lock_guard lock(core.queue_mutex);
    for (const Commands* c : commands)
        if (!c->impl_ || !c->impl_->finished)
            return Error{Errc::invalid_argument, cat(what, ": commands whose recording has not ended well")};
    if (commands.empty()) return {};
    // The fence of the last one stands for all: a queue signals in order.
    Status out;
    for (std::size_t done = 0; done < commands.size() && out.ok();) {
        std::array<VkCommandBuffer, kMostSubmits> handles;
        const std::size_t n = std::min(commands.size() - done, handles.size());
        for (std::size_t i = 0; i < n; ++i) handles[i] = commands[done + i]->impl_->commands.handle;
        done += n;
        out = core.submit(std::span(handles).first(n), done == commands.size() ? core.fence : VK_NULL_HANDLE, what);
    }
    if (out.ok())
        out = core.wait(core.fence, what);
    else
        core.fn.DeviceWaitIdle(core.device);  // what was submitted before must not be left running
    if (!out) return out;
    for (StagingSlot& slot : core.slots)  // earlier in the queue, so done
        if (std::exchange(slot.pending, false)) (void)core.wait(slot.fence, what);
    core.copies_pending = false;
    for (Commands* c : commands) c->impl_->has_run = true;
    return {};
}

}  // namespace quern::vulkan
