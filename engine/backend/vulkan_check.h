// SPDX-License-Identifier: Apache-2.0
// Drivers have bugs: before a device is trusted, every kernel that a model's plan will record answers a question of the model's own
// shape, and the answer is compared with the CPU's. Inputs are the same numbers each time, outputs are NaN before.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "engine/backend/vulkan_record.h"
#include "kernels/table.h"

namespace quern::engine {

/// After the weights are loaded: the kernels of matrices, with matrices of the model, whose rows are decoded from the file; that checks the
/// upload, too. A kernel of an optional feature (cooperative matrices, integer dot products) that gives a wrong answer has the feature
/// disabled, which the device's log says; a wrong answer of a plain one is an Error.
Status check_matrix_kernels(const RecordArgs& args, std::uint32_t max_bucket);

/// Once features are settled: all others, recorded as the plan's operations one by one, over pages of their own. None of them has another
/// form to fall back to, so a wrong answer is an Error. args.layout: its angles, window and wide_tokens.
Status check_other_kernels(const RecordArgs& args, std::uint32_t max_bucket, const kernels::KernelTable& table);

namespace check {

/// Allowed distance from the exact result, as a part of what was added up: that of a long sum in another order. What drivers get wrong is
/// off by far more.
inline constexpr double kFloatError = 1e-5;

/// n numbers within +-1.
std::vector<float> numbers(std::size_t n, std::uint32_t seed);
Result<vulkan::Buffer> buffer(vulkan::Device& device, std::size_t bytes, vulkan::MemoryKind kind = vulkan::MemoryKind::device);
/// Fills a buffer of floats from a byte on with NaN.
inline void poison(vulkan::Commands& commands, const vulkan::Buffer& b, std::size_t from = 0) { commands.fill(b, from, (b.size() - from) / 4 * 4, 0x7fc00000u); }
std::string wrong_result(std::string_view module, std::string_view what);
Error refusal(const vulkan::Device& device, const std::string& why);

}  // namespace check
}  // namespace quern::engine
