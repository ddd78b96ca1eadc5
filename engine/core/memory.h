// SPDX-License-Identifier: Apache-2.0
// Anonymous memory from the system, what the process holds, and sizes in bytes as text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "quern/result.hpp"

namespace quern::engine {

struct MappingOptions {
    std::size_t alignment = 64;  ///< of the first byte: a power of two, up to 1 GiB
    /// Asks for huge pages (a hint that the system may ignore); aligns to 2 MiB where the mapping is that large.
    bool huge_pages = false;
};

/// Zeroed, private, writable memory. Pages are taken from the system when first touched, so a large reservation costs
/// nothing until used. Owned; unmapped with the object.
class Mapping {
public:
    Mapping() = default;
    /// size: bytes; 0 gives an empty mapping. Errc::out_of_memory, naming `purpose`, where the system refuses.
    static Result<Mapping> create(std::size_t size, std::string_view purpose, const MappingOptions& options = {});
    Mapping(Mapping&& other) noexcept;
    Mapping& operator=(Mapping&& other) noexcept;
    ~Mapping();

    std::byte* data() const { return data_; }
    std::size_t size() const { return size_; }
    std::span<std::byte> bytes() const { return {data_, size_}; }
    /// Gives the whole pages inside [offset, offset + size) back to the system; they read as zeros afterwards.
    void release(std::size_t offset, std::size_t size) const;

private:
    std::byte* data_ = nullptr;  // first aligned byte
    std::size_t size_ = 0;
    void* base_ = nullptr;  // as mapped
    std::size_t base_size_ = 0;
};

/// Bytes of this process in memory now and at most so far; 0 where the system does not say.
struct ProcessMemory {
    std::uint64_t resident = 0, peak_resident = 0;
};
ProcessMemory process_memory();

/// "0 bytes", "1.5 KiB", "512 MiB", "3.9 GiB": powers of 1024, at most one decimal, rounded to nearest.
std::string format_bytes(std::uint64_t bytes);
/// "4G", "512M", "1.5GiB", "100000", "2 GB": K, M, G, T alone or with "iB" are powers of 1024; with "B", of 1000.
/// Upper or lower case. Errors name the text.
Result<std::uint64_t> parse_bytes(std::string_view text);

}  // namespace quern::engine
