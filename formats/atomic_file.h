// SPDX-License-Identifier: Apache-2.0
// A file that gets its name only when it is complete on disk.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "quern/result.hpp"

namespace quern {

/// Written beside its path and renamed by finish(), so that no reader ever sees half a file; without finish() nothing is
/// left behind.
class AtomicFile {
public:
    AtomicFile() = default;
    ~AtomicFile();
    AtomicFile(const AtomicFile&) = delete;
    AtomicFile& operator=(const AtomicFile&) = delete;

    /// Errors, here and below, are Errc::io and name the file.
    Status create(const std::string& path);
    Status write(std::span<const std::byte> bytes);
    /// Flushes to the disk, then renames.
    Status finish();

private:
    std::string path_, temporary_;
    int fd_ = -1;
};

}  // namespace quern
