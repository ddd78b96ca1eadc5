// SPDX-License-Identifier: Apache-2.0
// The loops that are timed. Instructions beyond the baseline come through function attributes, so that no unit here
// needs flags of its own; features say whether one may be called.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "bench/roofline/roofline.h"

namespace quern::bench {

struct PeakKernel {
    const char* name;
    Arithmetic arithmetic;
    std::uint32_t needs;  // kernels::Feature bits
    /// Multiplies ones by ones `n` times (at most kMostSteps) into independent accumulators and returns their sum: the
    /// multiply-adds done.
    std::uint64_t (*run)(std::uint64_t n);
};
/// Floats count exactly to 2^24, at most 4 an accumulator and step.
inline constexpr std::uint64_t kMostSteps = std::uint64_t{1} << 22;

/// Four walks side by side: walk j reads 64 bytes at p + j * gap + i * stride for i < n, prefetching `ahead` bytes
/// further. Returns the sum of all words modulo 2^64.
using ReadKernel = std::uint64_t (*)(const std::byte* p, std::size_t gap, std::size_t stride, std::size_t n,
                                     std::size_t ahead);

/// What this CPU architecture has, whether or not this machine does.
std::span<const PeakKernel> peak_kernels();
/// The widest loads that these features allow.
ReadKernel read_kernel(std::uint32_t features);

}  // namespace quern::bench
