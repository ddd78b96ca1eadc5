// SPDX-License-Identifier: Apache-2.0
// The numbers of one run as the kernels of a device read them (kernels/vulkan/args.h, args_ops.h), laid out anew in the same
// memory each time: tokens, positions, block tables, and the lists of what attention has to look at.
#pragma once

#include <algorithm>
#include <span>

#include "engine/backend/backend.h"
#include "engine/kv/tiers.h"
#include "kernels/vulkan/ops.h"

namespace quern::engine {

/// How a dispatch's groups follow from a run's numbers.
struct DispatchShape {
    /// segments: four lists, lone tokens and tiles of tokens over exact pages, and the same over quantized ones.
    enum class Count : std::uint8_t { one, tokens, outputs, segments, segments_end = segments + 4, stage = segments_end, quantize, keep };
    Count x = Count::one, y = Count::one;
    std::uint32_t x_groups = 1;   // x = one: so many; else ignored: a group an entry
    std::uint32_t y_groups = 1;   // y = one: so many; else entries that a group takes
    bool operator==(const DispatchShape&) const = default;
};

/// What is the same for all runs of a model.
struct RunLayout {
    const RopeAngles* angles = nullptr;
    std::uint32_t n_rot = 0, window = 0, n_ctx = 0, page_tokens = 16;
    std::uint32_t wide_tokens = 1;       // query tokens of a wide segment
    KvTiers tiers;
};

class RunBlock {
public:
    /// Most parts that a token's positions are cut into, in a bucket: many tokens give enough groups as they are.
    static std::uint32_t max_parts(std::uint32_t bucket) { return std::clamp(128 / bucket, 1u, 32u); }
    /// Rows of partial results that a bucket needs at most; with two tiers also for the first positions and what borders cut.
    static std::uint32_t max_slots(std::uint32_t bucket, const KvTiers& tiers) { return bucket * (max_parts(bucket) + (tiers.on ? 3 : 0)); }
    /// Shapes of an executable at most; the header is behind their groups.
    static constexpr std::size_t kMaxShapes = 64, kHeader = kMaxShapes * 16;
    /// Bytes that a bucket's block takes at most.
    static std::size_t bytes(const RunLayout& layout, std::uint32_t bucket);

    /// Writes the block to `to`, each shape's groups as three words, 16 bytes apart, at its beginning. Gives the bytes used. Allocates nothing. `to` is ordinary memory: what was written is read again.
    static std::size_t write(std::span<std::byte> to, const RunLayout& layout, std::uint32_t bucket, const RunArgs& args, std::span<const DispatchShape> shapes);
};

}  // namespace quern::engine
