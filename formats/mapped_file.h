// SPDX-License-Identifier: Apache-2.0
// A whole file as read-only bytes: mapped where possible, read into memory where not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "quern/result.hpp"

namespace quern {

class MappedFile {
public:
    /// Maps `path` read-only (an empty file gives no bytes); falls back to reading where it cannot be mapped (a pipe,
    /// some filesystems). A file cut short by someone else while mapped raises SIGBUS when the missing pages are
    /// touched.
    static Result<std::shared_ptr<MappedFile>> open(const std::string& path);
    ~MappedFile();
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;

    std::span<const std::byte> bytes() const { return {data_, size_}; }
    const std::string& path() const { return path_; }
    bool is_mapped() const { return mapped_; }
    /// When the file's bytes were last changed, in nanoseconds since 1970, as the system had it when opening.
    std::int64_t modified_ns() const { return modified_ns_; }
    /// Asks the system to read [offset, offset + size) soon.
    void will_need(std::size_t offset, std::size_t size) const;
    /// Gives the pages that lie wholly in `part` back to the system; they are read again from the file if touched.
    /// Does nothing where the file was read, not mapped.
    void release(std::span<const std::byte> part) const;
    /// Bytes of the mapping now in this process's memory or the page cache (mincore); size() where not mapped.
    std::size_t resident_bytes() const;

private:
    MappedFile() = default;
    std::string path_;
    const std::byte* data_ = nullptr;
    std::size_t size_ = 0;
    std::int64_t modified_ns_ = 0;
    bool mapped_ = false;
    std::vector<std::byte> read_;  // holds the bytes where they were read, not mapped
};

}  // namespace quern
