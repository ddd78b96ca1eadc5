// SPDX-License-Identifier: Apache-2.0
// The list of architectures. To add one: a file beside this, and its line here.
#pragma once

#include "engine/model/arch_spec.h"

namespace quern::engine {

extern const ArchSpec kArchLlama, kArchQwen2, kArchQwen3;

inline constexpr const ArchSpec* kArchs[] = {&kArchLlama, &kArchQwen2, &kArchQwen3};

}  // namespace quern::engine
