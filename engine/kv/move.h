// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "engine/kv/page_pool.h"

namespace quern::engine {

/// Copies the keys and values of all layers from one position of a block table to another, in a pool of F32 or F16 pages, all
/// of them the host's. Right only where the token at `from` was run at position `to`, as the tokens of a tree are: keys carry
/// their rotation.
void copy_position(const PagePool& pool, const std::uint32_t* pages, std::uint32_t from, std::uint32_t to);

}  // namespace quern::engine
