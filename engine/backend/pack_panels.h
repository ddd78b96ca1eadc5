// SPDX-License-Identifier: Apache-2.0
// Packing of a matrix's panels (kernels/cpu/pack) by all threads.
#pragma once

#include "engine/core/thread_pool.h"
#include "formats/gguf.h"

namespace quern::engine {

/// Bytes of a matrix in panels.
std::uint64_t packed_size(const gguf::Tensor& t);
/// Panels [first, first + n) of a matrix, to `panels` on.
void pack_panels(ThreadPool& pool, const gguf::Tensor& t, std::uint64_t first, std::uint64_t n, std::byte* panels);
/// Gives the file's pages of those panels' rows back to the system.
void release_panels(const gguf::File& file, const gguf::Tensor& t, std::uint64_t first, std::uint64_t n);

}  // namespace quern::engine
