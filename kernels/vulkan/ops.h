// SPDX-License-Identifier: Apache-2.0
// The kernels of args_ops.h for those who record them: module, specialization constants, groups. Groups that depend on a run
// (rows, tokens, segments, jobs) come from dispatch_indirect; a list must have as many entries as its dispatch has groups in x.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/views.h"
#include "kernels/vulkan/args_ops.h"

namespace quern::vulkan {

static_assert(offsetof(RunHeader, outputs) == 4 * kListOutputs && offsetof(RunHeader, merges) == 4 * kListMerges &&
              offsetof(RunHeader, stage) == 4 * kListStage && offsetof(RunHeader, segments) == 4 * kListSegments &&
              offsetof(RunHeader, quantize) == 4 * kListQuantize && offsetof(RunHeader, keep) == 4 * kListKeep &&
              sizeof(RunHeader) % 16 == 0 && sizeof(ChunkInfo) == 32 && sizeof(AttnSegment) == 32);

/// Module "rms_norm" (NormPush): groups x = rows.
inline constexpr std::array<std::uint32_t, 1> kNormConstants = {256};

/// Modules "gather" (GatherPush) and "pair" (PairPush): groups x = rows, y = row_pieces(n).
inline constexpr std::uint32_t kRowThreads = 128;
constexpr std::uint32_t row_pieces(std::uint32_t n) { return (n + 4 * kRowThreads - 1) / (4 * kRowThreads); }
inline constexpr std::array<std::uint32_t, 1> kGatherConstants = {kRowThreads};
enum class PairOp : std::uint32_t { add, swiglu, geglu };
constexpr std::array<std::uint32_t, 2> pair_constants(PairOp op) { return {kRowThreads, static_cast<std::uint32_t>(op)}; }

/// Module "rope_store" (RopeStorePush): groups x = n_tokens, y = n_head + n_head_kv. format: F32 or F16; page_tokens a multiple
/// of 16; head_dim a multiple of 8, at most 512; n_rot even, at most head_dim (0: nothing is rotated). No page may belong to
/// two sequences that store to it in one run.
constexpr std::array<std::uint32_t, 6> rope_store_constants(std::uint32_t head_dim, std::uint32_t n_rot, bool neox, kernels::KvFormat format,
                                                            std::uint32_t page_tokens) {
    return {64, head_dim, n_rot, neox, static_cast<std::uint32_t>(format), page_tokens};
}

/// Module "attention" (AttentionPush) and how it is cut. Groups x = segments of the list, y = n_head_kv * rep_groups().
/// One list and one dispatch for each format of pages and each shape; partials of all go to the same buffers.
/// A decode shape has one token's heads of a KV head; segments of 256 positions (cut at multiples of 256) make enough groups.
/// A wide shape has tokens() tokens; its segments may be as long as one likes, cut at multiples of 256 or nowhere.
/// A row's result depends on its position, the segments' bounds and the shape, not on other rows or chunks.
struct AttentionShape {
    std::uint32_t threads, format, head_dim, page_tokens, rows, row_tile, block, n_rep, reps;
    /// head_dim a multiple of 8, at most 512. page_tokens: a multiple of 16; 32 for Q8 and Q4.
    static constexpr AttentionShape make(kernels::KvFormat format, std::uint32_t head_dim, std::uint32_t n_rep, std::uint32_t page_tokens, bool wide) {
        AttentionShape s{128, static_cast<std::uint32_t>(format), head_dim, page_tokens, 1, 1, 256, n_rep, n_rep};
        const std::uint32_t most = head_dim <= 128 ? 32 : head_dim <= 256 ? 16 : 8;   // queries: at most 16 KiB of shared memory
        s.reps = std::min(n_rep, most);
        while (s.rows < (wide ? most : s.reps)) s.rows *= 2;
        s.row_tile = std::min(s.rows, 4u);
        s.block = s.rows > 16 ? 64 : s.rows > 8 ? 128 : 256;   // scores: at most 8 KiB
        return s;
    }
    /// Query tokens of a segment, at most; at least 1.
    constexpr std::uint32_t tokens() const { return rows / reps; }
    constexpr std::uint32_t rep_groups() const { return (n_rep + reps - 1) / reps; }
    constexpr std::array<std::uint32_t, 7> constants() const { return {threads, format, head_dim, page_tokens, rows, row_tile, block}; }
};

/// Module "attention_merge" (MergePush): groups x = n_tokens, y = n_head.
constexpr std::array<std::uint32_t, 2> merge_constants(std::uint32_t head_dim) { return {64, head_dim}; }

/// Module "kv_quantize" (KvQuantizePush): groups x = jobs, y = n_head_kv. format: Q8 or Q4.
constexpr std::array<std::uint32_t, 3> kv_quantize_constants(std::uint32_t head_dim, kernels::KvFormat format) {
    return {64, head_dim, static_cast<std::uint32_t>(format)};
}

/// Module "copy_pages" (CopyPagesPush): groups x = jobs, y = any number (they share a page's bytes).
inline constexpr std::array<std::uint32_t, 1> kCopyPagesConstants = {128};

/// Module "top" (TopPush): groups x = top_parts(n), y = rows. One run leaves k values for each part of kTopPart inputs, in
/// order of parts; runs with from_pairs follow until one part is left. k <= kTopMost.
inline constexpr std::uint32_t kTopPart = 2048, kTopMost = 256;
constexpr std::uint32_t top_parts(std::uint32_t n) { return (n + kTopPart - 1) / kTopPart; }
constexpr std::array<std::uint32_t, 3> top_constants(bool from_pairs) { return {256, kTopPart, from_pairs}; }

}  // namespace quern::vulkan
