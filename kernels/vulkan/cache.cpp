// SPDX-License-Identifier: Apache-2.0
// The pipeline cache on disk: a head, then the driver's bytes. Drivers were seen to crash on bytes that are not theirs
// or are damaged, so they get only what was written whole for this very driver. Whatever is wrong with a file costs
// time, no more.
//   "quern\0vk"  format  vendor  device  driver version  pipelineCacheUUID[16]  bytes (8)  hash of them (8)
#include <cstring>
#include <filesystem>
#include <fstream>

#include "formats/atomic_file.h"
#include "formats/bytes.h"
#include "formats/hash.h"
#include "formats/text.h"
#include "kernels/vulkan/core.h"

namespace quern::vulkan {
namespace {

constexpr std::string_view kMagic("quern\0vk", 8);
constexpr std::uint32_t kFormat = 1;
constexpr std::size_t kAgreed = 40, kHead = 56;           // bytes: that name the driver, in all
constexpr std::size_t kMostBytes = std::size_t{1} << 30;  // nobody's cache is larger

void put(std::vector<std::byte>& out, std::uint64_t v, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) out.push_back(static_cast<std::byte>(v >> (8 * i)));
}

std::vector<std::byte> head(const Traits& t, std::span<const std::byte> data) {
    std::vector<std::byte> out;
    for (const char c : kMagic) out.push_back(static_cast<std::byte>(c));
    for (const std::uint32_t v : {kFormat, t.vendor_id, t.device_id, t.driver_version}) put(out, v, 4);
    for (const std::uint8_t v : t.cache_uuid) out.push_back(static_cast<std::byte>(v));
    put(out, data.size(), 8);
    put(out, hash_bytes(data), 8);
    return out;
}

/// A file for each driver, so that two devices do not take turns in one.
std::string path_of(const std::string& folder, const Traits& t) {
    const std::vector<std::byte> names = head(t, {});
    constexpr char digits[] = "0123456789abcdef";
    const std::uint64_t hash = hash_bytes(std::span(names).first(kAgreed));
    std::string hex;
    for (int shift = 60; shift >= 0; shift -= 4) hex += digits[hash >> shift & 15];
    return (std::filesystem::path(folder) / cat("vulkan-", hex, ".pipelines")).string();
}

/// What is wrong with a file; empty if nothing.
std::string fault_of(const std::vector<std::byte>& file, const Traits& t) {
    if (file.size() < kHead) return "it is cut short";
    const std::span<const std::byte> data = std::span(file).subspan(kHead);
    const std::vector<std::byte> wanted = head(t, data);
    if (std::memcmp(file.data(), wanted.data(), kMagic.size() + 4) != 0)
        return "it is no pipeline cache of this version";
    if (std::memcmp(file.data(), wanted.data(), kAgreed) != 0) return "it belongs to another device or driver";
    if (load_le(file.data() + kAgreed, 8) != data.size()) return "its size is not what it says";
    if (std::memcmp(file.data(), wanted.data(), kHead) != 0) return "it is damaged: its checksum is another";
    return {};
}

std::vector<std::byte> read_file(const std::string& path) {
    std::vector<std::byte> out;
    std::error_code error;
    const std::uintmax_t size = std::filesystem::file_size(path, error);
    if (error || size > kMostBytes) return out;
    std::ifstream in(path, std::ios::binary);
    out.resize(static_cast<std::size_t>(size));
    in.read(reinterpret_cast<char*>(out.data()), static_cast<std::streamsize>(out.size()));
    out.resize(static_cast<std::size_t>(in.gcount()));
    return out;
}

}  // namespace

void Core::load_cache() {
    auto info = start_of<VkPipelineCacheCreateInfo>(VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO);
    std::vector<std::byte> file;
    if (!options.cache_dir.empty()) {
        const std::string path = path_of(options.cache_dir, traits);
        file = read_file(path);
        const std::string fault = file.empty() ? "" : fault_of(file, traits);
        if (!fault.empty()) {
            log(cat("pipeline cache ", path, " is left aside: ", fault));
        } else if (!file.empty()) {
            info.initialDataSize = file.size() - kHead;
            info.pInitialData = file.data() + kHead;
            log(cat("pipeline cache ", path, ": ", info.initialDataSize, " bytes"));
            cache_saved_bytes = info.initialDataSize;
        }
    }
    if (fn.CreatePipelineCache(device, &info, nullptr, &cache) == VK_SUCCESS) return;
    cache = VK_NULL_HANDLE;  // pipelines can be made without
    log("the driver makes no pipeline cache");
}

void Core::save_cache() {
    std::size_t size = 0;
    if (!cache || options.cache_dir.empty() || lost) return;
    if (fn.GetPipelineCacheData(device, cache, &size, nullptr) != VK_SUCCESS || size <= cache_saved_bytes) return;
    std::vector<std::byte> data(size);
    if (fn.GetPipelineCacheData(device, cache, &size, data.data()) != VK_SUCCESS)
        return;  // it has grown since: next time
    data.resize(size);
    std::error_code error;
    std::filesystem::create_directories(options.cache_dir, error);
    AtomicFile file;
    Status s = file.create(path_of(options.cache_dir, traits));
    if (s.ok()) s = file.write(head(traits, data));
    if (s.ok()) s = file.write(data);
    if (s.ok()) s = file.finish();
    if (!s) return log(cat("the pipeline cache is not kept: ", s.error().message));
    cache_saved_bytes = size;
}

}  // namespace quern::vulkan
