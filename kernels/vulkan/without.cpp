// SPDX-License-Identifier: Apache-2.0
// What stands in for a Vulkan device in a build without Vulkan: there is none.
#include "kernels/vulkan/device.h"

namespace quern::vulkan {
namespace {

Error none() {
    return {Errc::unsupported,
            "this build has no Vulkan: configure it where libvulkan-dev, glslang-tools and spirv-tools are installed"};
}

}  // namespace

struct Device::Impl {
    DeviceInfo info;
};
struct Commands::Impl {};

std::string_view feature_name(std::uint32_t) { return {}; }
Result<std::vector<DeviceInfo>> list_devices() { return none(); }
std::span<const ModuleInfo> modules() { return {}; }
std::span<const std::string_view> missing_modules() { return {}; }

// Without a device there is never a buffer, nor a record: nothing below is reached but the destructors and moves.
Buffer::Buffer(Buffer&&) noexcept {}
Buffer& Buffer::operator=(Buffer&&) noexcept { return *this; }
Buffer::~Buffer() = default;
void Buffer::release() noexcept {
    device_ = nullptr;
    buffer_ = memory_ = 0;
    readable_ = false;
}

Commands::Commands(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Commands::Commands(Commands&&) noexcept = default;
Commands& Commands::operator=(Commands&&) noexcept = default;
Commands::~Commands() = default;
void Commands::dispatch(const Kernel&, std::span<const std::byte>, Groups) {}
void Commands::dispatch_indirect(const Kernel&, std::span<const std::byte>, const Buffer&, std::size_t) {}
void Commands::barrier() {}
void Commands::copy(const Buffer&, std::size_t, const Buffer&, std::size_t, std::size_t) {}
void Commands::fill(const Buffer&, std::size_t, std::size_t, std::uint32_t) {}
void Commands::timestamp() {}
Status Commands::finish() { return none(); }

Device::Device() = default;
Device::~Device() = default;
Result<std::unique_ptr<Device>> Device::create(const DeviceOptions&) { return none(); }
const DeviceInfo& Device::info() const { return impl_->info; }
bool Device::has(Feature) const { return false; }
void Device::disable(Feature, const std::string&) {}
Result<Buffer> Device::allocate(std::size_t, MemoryKind, const std::string&) { return none(); }
std::uint64_t Device::held_bytes() const { return 0; }
Result<const Kernel*> Device::kernel(std::string_view, std::span<const std::uint32_t>, std::uint32_t) { return none(); }
std::uint32_t Device::n_kernels() const { return 0; }
Result<Commands> Device::record() { return none(); }
Status Device::run(std::span<Commands* const>, const std::string&) { return none(); }
Result<std::vector<double>> Device::timestamps(const Commands&) const { return none(); }
double Device::seconds(const Commands&) const { return 0; }
Status Device::write(const Buffer&, std::size_t, std::span<const std::byte>) { return none(); }
Status Device::read(const Buffer&, std::size_t, std::span<std::byte>) { return none(); }
std::uint32_t Device::n_validation_messages() const { return 0; }
void Device::save_cache() {}

}  // namespace quern::vulkan
