// SPDX-License-Identifier: Apache-2.0
// A Vulkan device that runs compute kernels: which there are, memory, pipelines made on first use, recorded commands. The
// loader is looked for at run time: without one, or without a driver, every call gives an Error and nothing else changes.
// Kernels see memory by its 64-bit address (buffer device address); there are no descriptors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quern/result.hpp"

namespace quern::vulkan {

/// What a device may have and kernels may use; `disable` in DeviceOptions takes them away one by one.
enum Feature : std::uint32_t {
    kFloat16 = 1u << 0,        // 16-bit arithmetic in shaders
    kIntegerDot = 1u << 1,     // packed 4 x 8-bit dot products that the device says are fast (or forced by kForceIntegerDot)
    kCoopmat = 1u << 2,        // cooperative matrices, 16 x 16 x 16, F16 to F32
    kSubgroupSize = 1u << 3,   // a subgroup size can be asked for
    kHostVisible = 1u << 4,    // device memory that the host can write to (integrated, or a resizable BAR)
    kTimestamps = 1u << 5,
};
/// Names of the bits, for options and reports; "" ends the list.
std::string_view feature_name(std::uint32_t index);

enum class DeviceKind : std::uint8_t { discrete, integrated, virtual_gpu, cpu, other };

struct DeviceInfo {
    std::uint32_t index = 0;            // in list_devices()
    std::string name, driver;           // "NVIDIA H200", "NVIDIA 570.86.15"
    DeviceKind kind = DeviceKind::other;
    std::uint64_t memory_bytes = 0;     // of its largest device-local heap
    std::uint64_t free_bytes = 0;       // of it, as far as the driver tells (VK_EXT_memory_budget); else memory_bytes
    std::uint64_t max_allocation = 0;   // bytes of one buffer
    std::uint32_t features = 0;
    std::uint32_t subgroup = 0, min_subgroup = 0, max_subgroup = 0;
    std::uint32_t shared_bytes = 0;     // workgroup memory
    std::uint32_t max_invocations = 0;  // threads of a workgroup
    std::string refusal;                // why it cannot be used ("needs Vulkan 1.2", "has no buffer addresses"); empty: it can
};

/// Every device that the loader shows, those that cannot be used among them. Error: no loader or no driver.
Result<std::vector<DeviceInfo>> list_devices();

/// For tests: makes the n-th (from 1) such call fail. 0: none.
struct Faults {
    std::uint32_t allocation = 0;       // out of device memory
    std::uint32_t submit = 0;           // device lost
    std::string kernel;                 // not a call but a module: its dispatches do nothing, and nobody is told
};

struct DeviceOptions {
    /// An index of list_devices() or a part of a name, whatever its case. Empty: the first discrete device, else another
    /// GPU. A CPU device is taken only where its index or name is given.
    std::string device;
    std::uint32_t disable = 0;          // Feature bits
    bool force_integer_dot = false;     // though the device says that it is slow
    bool validation = false;            // validation layer, its messages to log; an Error if the layer is not there
    std::string cache_dir;              // pipeline cache; empty: none is kept
    Faults faults;
    std::function<void(const std::string&)> log;
};

enum class MemoryKind : std::uint8_t {
    device,      // fastest for the device; the host may not see it
    upload,      // host writes in order, device reads
    readback,    // device writes, host reads
};

class Device;

/// Memory of a device; released with the object, which must not outlive the device.
class Buffer {
public:
    Buffer() = default;
    Buffer(Buffer&& o) noexcept;
    Buffer& operator=(Buffer&& o) noexcept;
    ~Buffer();
    std::uint64_t address() const { return address_; }    // a multiple of 256
    std::size_t size() const { return size_; }
    /// The host's view; empty for device memory that it does not see. Coherent: no flushing.
    std::span<std::byte> host() const { return {host_, host_ ? size_ : 0}; }
    explicit operator bool() const { return size_ != 0; }

private:
    friend class Device;
    friend class Commands;
    void release() noexcept;
    Device* device_ = nullptr;
    std::uint64_t buffer_ = 0, memory_ = 0, address_ = 0;
    std::size_t size_ = 0;
    bool readable_ = false;  // by the host at the speed of memory
    std::byte* host_ = nullptr;
};

/// A pipeline. Lives as long as the device.
struct Kernel;

struct Groups { std::uint32_t x = 1, y = 1, z = 1; };

/// Commands recorded once and run any number of times. Must not outlive the device.
class Commands {
public:
    Commands(Commands&&) noexcept;
    Commands& operator=(Commands&&) noexcept;
    ~Commands();
    /// `push`: the kernel's push constants, at most 128 bytes, kept in the record.
    void dispatch(const Kernel& kernel, std::span<const std::byte> push, Groups groups);
    /// Groups from three uint32 in `from` at `offset` (a multiple of 4) when it runs.
    void dispatch_indirect(const Kernel& kernel, std::span<const std::byte> push, const Buffer& from, std::size_t offset);
    template <class Push>
    void dispatch(const Kernel& kernel, const Push& push, Groups groups) { dispatch(kernel, std::as_bytes(std::span(&push, 1)), groups); }
    template <class Push>
    void dispatch_indirect(const Kernel& kernel, const Push& push, const Buffer& from, std::size_t offset) {
        dispatch_indirect(kernel, std::as_bytes(std::span(&push, 1)), from, offset);
    }
    /// What follows sees what came before (kernels and copies).
    void barrier();
    void copy(const Buffer& from, std::size_t from_offset, const Buffer& to, std::size_t to_offset, std::size_t bytes);
    void fill(const Buffer& to, std::size_t offset, std::size_t bytes, std::uint32_t word);
    /// Notes the time at which everything before has run; numbered from 0 in order of recording. At most 1024.
    void timestamp();
    /// Ends the recording. Error if the driver had no memory for it.
    Status finish();

private:
    friend class Device;
    struct Impl;
    std::unique_ptr<Impl> impl_;
    explicit Commands(std::unique_ptr<Impl> impl);
};

class Device {
public:
    static Result<std::unique_ptr<Device>> create(const DeviceOptions& options);
    ~Device();
    const DeviceInfo& info() const;
    /// Features that are there and not disabled.
    bool has(Feature f) const;
    /// Takes a feature away from now on (a self-test failed); said in the log.
    void disable(Feature f, const std::string& why);

    /// Error out_of_memory names `what` and the sizes.
    Result<Buffer> allocate(std::size_t bytes, MemoryKind kind, const std::string& what);
    /// Bytes held now.
    std::uint64_t held_bytes() const;

    /// The kernel of a module (shaders/variants.list) with these specialization constants (ids 0, 1, ...), made at the first
    /// call. required_subgroup 0: the device's own. Error: the module is not in this build, or the driver refuses it.
    Result<const Kernel*> kernel(std::string_view module, std::span<const std::uint32_t> constants = {}, std::uint32_t required_subgroup = 0);

    /// Kernels made so far.
    std::uint32_t n_kernels() const;

    Result<Commands> record();
    /// Submits in order, each by itself, and waits for all. Error device_lost names `what`; every later run fails the same way.
    Status run(std::span<Commands* const> commands, const std::string& what);
    Status run(Commands& commands, const std::string& what) { Commands* c = &commands; return run(std::span<Commands* const>(&c, 1), what); }
    /// Seconds at the timestamps of commands that have run, from the first.
    Result<std::vector<double>> timestamps(const Commands& commands) const;
    /// Seconds from the first to the last of them; 0 where there are none. Allocates nothing.
    double seconds(const Commands& commands) const;

    /// Copies to and from buffers of any kind, through staging memory where it must.
    Status write(const Buffer& to, std::size_t offset, std::span<const std::byte> bytes);
    Status read(const Buffer& from, std::size_t offset, std::span<std::byte> bytes);

    /// Messages of the validation layer so far.
    std::uint32_t n_validation_messages() const;
    /// Writes the pipeline cache where the options say, if it has grown; the destructor does so too.
    void save_cache();

private:
    friend class Buffer;
    friend class Commands;
    Device();
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

/// Modules in this build, and those that the shader compiler could not make, with the reason.
struct ModuleInfo { std::string_view name; std::size_t bytes; };
std::span<const ModuleInfo> modules();
std::span<const std::string_view> missing_modules();

}  // namespace quern::vulkan
