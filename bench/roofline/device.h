// SPDX-License-Identifier: Apache-2.0
// What a Vulkan device can do at most, measured in a few seconds by shaders/probe: reading and copying its memory, F32,
// F16, packed int8 and matrix arithmetic.
#pragma once

#include <string>
#include <vector>

#include "kernels/vulkan/device.h"
#include "quern/result.hpp"

namespace quern::bench {

/// One way of moving memory.
struct DeviceRate {
    std::string pattern;                  // "256 threads, 4 loads under way"
    double read_gb_s = 0, copy_gb_s = 0;  // 10^9 bytes a second; a copied byte counts twice
};

struct DeviceRoofline {
    double read_gb_s = 0, copy_gb_s = 0;  // best of rates
    // 10^9 multiplications and additions a second; 0 where the device or this build cannot.
    double f32_gop_s = 0, f16_gop_s = 0, int8_gop_s = 0, coopmat_gop_s = 0;
    std::vector<DeviceRate> rates;
    std::vector<std::string> missing;  // "peak_coopmat: the device has no coopmat"
    std::size_t buffer_bytes = 0;      // of each of two
    bool gpu_clock = false;            // timed by the device; else by the host, waiting included
};

/// Measures within about five seconds; `quick`: little memory and short runs, which show that it works. Every word read
/// and every operation must show in the results, or Errc::internal says which did not. Other errors are the device's.
Result<DeviceRoofline> measure(vulkan::Device& device, bool quick);

}  // namespace quern::bench
