// SPDX-License-Identifier: Apache-2.0
// Drivers have bugs: before a device is trusted, every matrix kernel that a model will use multiplies one of the model's own
// matrices, and rows of the result are compared with the file's weights decoded on the CPU. That checks the upload, too.
#pragma once

#include "engine/backend/vulkan_record.h"

namespace quern::engine {

/// After the weights are loaded. A kernel of an optional feature (cooperative matrices, integer dot products) that gives a wrong answer has
/// the feature disabled, which the device's log says; a wrong answer of a plain one is an Error.
Status check_matrix_kernels(const RecordArgs& args, std::uint32_t max_bucket);

}  // namespace quern::engine
