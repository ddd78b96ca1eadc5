// SPDX-License-Identifier: Apache-2.0
// Commands: recorded once, run many times.
#include <algorithm>

#include "formats/text.h"
#include "kernels/vulkan/core.h"

namespace quern::vulkan {

Commands::Commands(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Commands::Commands(Commands&&) noexcept = default;
Commands& Commands::operator=(Commands&&) noexcept = default;
Commands::~Commands() = default;

Commands::Impl::~Impl() {
    if (queries) core->fn.DestroyQueryPool(core->device, queries, nullptr);
    core->release(commands);
}

Result<Commands> Device::record() {
    auto impl = std::make_unique<Commands::Impl>();
    impl->core = impl_.get();
    Result<CommandBuffer> commands = impl_->make_commands("recording");
    if (!commands) return commands.error();
    impl->commands = *commands;
    auto begin = start_of<VkCommandBufferBeginInfo>(VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO);
    const VkResult r = impl_->fn.BeginCommandBuffer(commands->handle, &begin);
    if (r != VK_SUCCESS) return Error{Errc::out_of_memory, cat("recording: no memory (", result_name(r), ")")};
    impl_->barrier(commands->handle);
    return Commands(std::move(impl));
}

bool Commands::Impl::bind(const Kernel& kernel, std::span<const std::byte> push) {
    if (push.size() > kMaxPush || push.size() % 4 != 0) {
        note({Errc::invalid_argument, cat("a dispatch: ", push.size(), " bytes of push constants; at most ", kMaxPush,
                                          " and a multiple of 4 are possible")});
        return false;
    }
    if (bound != kernel.pipeline)
        core->fn.CmdBindPipeline(commands.handle, VK_PIPELINE_BIND_POINT_COMPUTE, kernel.pipeline);
    bound = kernel.pipeline;
    if (!push.empty())
        core->fn.CmdPushConstants(commands.handle, core->layout, VK_SHADER_STAGE_COMPUTE_BIT, 0,
                                  static_cast<std::uint32_t>(push.size()), push.data());
    return true;
}

void Commands::dispatch(const Kernel& kernel, std::span<const std::byte> push, Groups groups) {
    const std::uint32_t(&limit)[3] = impl_->core->traits.max_groups;
    if (groups.x > limit[0] || groups.y > limit[1] || groups.z > limit[2])
        return impl_->note(
            {Errc::invalid_argument, cat("a dispatch of ", groups.x, " x ", groups.y, " x ", groups.z,
                                         " groups; the device takes ", limit[0], " x ", limit[1], " x ", limit[2])});
    if (impl_->bind(kernel, push) && !kernel.silent) impl_->core->fn.CmdDispatch(impl_->commands.handle, groups.x, groups.y, groups.z);
}

void Commands::dispatch_indirect(const Kernel& kernel, std::span<const std::byte> push, const Buffer& from,
                                 std::size_t offset) {
    if (offset % 4 != 0 || from.size() < 12 || offset > from.size() - 12)
        return impl_->note({Errc::invalid_argument,
                            cat("an indirect dispatch: three words at ", offset, " of ", from.size(), " bytes")});
    if (impl_->bind(kernel, push) && !kernel.silent)
        impl_->core->fn.CmdDispatchIndirect(impl_->commands.handle, handle_of<VkBuffer>(from.buffer_), offset);
}

void Commands::barrier() { impl_->core->barrier(impl_->commands.handle); }

void Commands::copy(const Buffer& from, std::size_t from_offset, const Buffer& to, std::size_t to_offset,
                    std::size_t bytes) {
    if (bytes == 0) return;
    if (bytes > from.size() || from_offset > from.size() - bytes || bytes > to.size() || to_offset > to.size() - bytes)
        return impl_->note({Errc::invalid_argument, cat("a copy: ", bytes, " bytes from ", from_offset, " of ",
                                                        from.size(), " to ", to_offset, " of ", to.size())});
    const VkBufferCopy region = {from_offset, to_offset, bytes};
    impl_->core->fn.CmdCopyBuffer(impl_->commands.handle, handle_of<VkBuffer>(from.buffer_),
                                  handle_of<VkBuffer>(to.buffer_), 1, &region);
}

void Commands::fill(const Buffer& to, std::size_t offset, std::size_t bytes, std::uint32_t word) {
    if (bytes == 0) return;
    if (offset % 4 != 0 || bytes % 4 != 0 || bytes > to.size() || offset > to.size() - bytes)
        return impl_->note({Errc::invalid_argument,
                            cat("a fill: ", bytes, " bytes at ", offset, " of ", to.size(), ", multiples of 4")});
    impl_->core->fn.CmdFillBuffer(impl_->commands.handle, handle_of<VkBuffer>(to.buffer_), offset, bytes, word);
}

void Commands::timestamp() {
    Core& core = *impl_->core;
    if (!(core.features & kTimestamps)) return impl_->note({Errc::unsupported, "the device has no timestamps"});
    if (impl_->n_timestamps == kMaxTimestamps)
        return impl_->note({Errc::invalid_argument, cat("more than ", kMaxTimestamps, " timestamps")});
    if (!impl_->queries) {
        auto info = start_of<VkQueryPoolCreateInfo>(VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO);
        info.queryType = VK_QUERY_TYPE_TIMESTAMP;
        info.queryCount = kMaxTimestamps;
        if (core.fn.CreateQueryPool(core.device, &info, nullptr, &impl_->queries) != VK_SUCCESS) {
            impl_->queries = VK_NULL_HANDLE;
            return impl_->note({Errc::out_of_memory, "no memory for timestamps"});
        }
        core.fn.CmdResetQueryPool(impl_->commands.handle, impl_->queries, 0, kMaxTimestamps);
    }
    core.fn.CmdWriteTimestamp(impl_->commands.handle, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, impl_->queries,
                              impl_->n_timestamps++);
}

Status Commands::finish() {
    if (impl_->finished) return {};
    Core& core = *impl_->core;
    core.barrier_to_host(impl_->commands.handle);
    const VkResult r = core.fn.EndCommandBuffer(impl_->commands.handle);
    if (r != VK_SUCCESS) impl_->note({Errc::out_of_memory, cat("recording: no memory (", result_name(r), ")")});
    if (impl_->problem.ok()) impl_->finished = true;
    return impl_->problem;
}

Result<std::vector<double>> Device::timestamps(const Commands& commands) const {
    const Commands::Impl& c = *commands.impl_;
    if (!c.has_run) return Error{Errc::invalid_argument, "timestamps of commands that have not run"};
    std::vector<double> out(c.n_timestamps);
    if (out.empty()) return out;
    std::vector<std::uint64_t> ticks(c.n_timestamps);
    const VkResult r = impl_->fn.GetQueryPoolResults(impl_->device, c.queries, 0, c.n_timestamps, ticks.size() * 8,
                                                     ticks.data(), 8, VK_QUERY_RESULT_64_BIT);
    if (r != VK_SUCCESS) return Error{Errc::device_lost, cat("timestamps: ", result_name(r))};
    for (std::size_t i = 0; i < ticks.size(); ++i) out[i] = impl_->seconds_between(ticks[0], ticks[i]);
    return out;
}

double Device::seconds(const Commands& commands) const {
    const Commands::Impl& c = *commands.impl_;
    if (!c.has_run || c.n_timestamps < 2) return 0;
    std::uint64_t ticks[2];
    for (std::uint32_t i = 0; i < 2; ++i)
        if (impl_->fn.GetQueryPoolResults(impl_->device, c.queries, i ? c.n_timestamps - 1 : 0, 1, 8, &ticks[i], 8,
                                          VK_QUERY_RESULT_64_BIT) != VK_SUCCESS)
            return 0;
    return impl_->seconds_between(ticks[0], ticks[1]);
}

}  // namespace quern::vulkan
