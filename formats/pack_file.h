// SPDX-License-Identifier: Apache-2.0
// The packed cache: a model's matrices as the kernels read them, in a file that is mapped instead of packing again.
//
//   head      magic, format, byte order, layout, count of matrices; the source's size, time and hash
//   a matrix  type, length of its name, rows, columns, offset, bytes, checksum, name, zeros up to a multiple of 8
//   then      hash of all that, zeros up to a multiple of 64, the matrices one after the other
//
// The reader knows from the model what the file must say, byte for byte, checksums aside. It compares; no number of the
// file decides where anything is read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/dtype.h"
#include "quern/result.hpp"

namespace quern {

struct PackFile {
    struct Matrix {
        std::string_view name;
        DType type = DType::F32;
        std::uint64_t rows = 0, cols = 0;
        std::uint64_t bytes = 0;     // packed; a multiple of 64
        std::uint64_t offset = 0;    // in the file: set by place()
        std::uint64_t checksum = 0;  // of the packed bytes; what it is a hash of is the caller's choice
    };

    std::uint32_t layout = 0;        // version of the packed form, which other code decides
    std::uint64_t source_size = 0;   // of the model's files, in bytes
    std::int64_t source_time = 0;    // of their last change, in nanoseconds since 1970
    std::uint64_t source_hash = 0;   // of what else tells one model from another
    std::vector<Matrix> matrices;

    /// Sets the offsets; gives the size of the file.
    std::uint64_t place();
    /// Compares `file` with this (placed) description and takes the checksums from it. Errc::bad_file says what differs;
    /// checksums are then unchanged. The matrices' bytes are not looked at.
    Status read(std::span<const std::byte> file);
    /// Writes the file, with the data of each matrix: complete, or not at all. place() must have been called.
    Status write(const std::string& path, std::span<const std::span<const std::byte>> data) const;
    /// All before the first matrix.
    std::vector<std::byte> head() const;
};

}  // namespace quern
