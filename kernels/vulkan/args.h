// SPDX-License-Identifier: Apache-2.0
// What host and shaders agree on: push constants, and the block of numbers that changes from run to run while the recorded
// commands stay. Included by C++ and by GLSL (ADDR: a device address, uvec2 there), so: integers, floats and structs only.
#ifndef QUERN_VULKAN_ARGS_H
#define QUERN_VULKAN_ARGS_H
#ifdef __cplusplus
#include <cstdint>
namespace quern::vulkan {
using uint = std::uint32_t;
#define ADDR std::uint64_t
#else
#define ADDR uvec2
#endif

/// A run's numbers. Behind it, 16-byte aligned, at word offsets (of 4 bytes) from its start: int tokens[n_tokens];
/// TokenInfo info[n_tokens]; ChunkInfo chunks[n_chunks]; uint outputs[n_outputs]; float rope[n_tokens][n_rot] (cos, sin a
/// pair); uint tables[].
struct RunHeader {
    uint n_tokens, n_outputs, n_chunks, n_rot;
    uint tokens, info, chunks, outputs, rope, tables;
    uint pad0, pad1;
};
struct TokenInfo {
    uint chunk;   // index
    int pos;      // where its key lies: chunk's pos0 + index in it
    int first;    // first position that it sees (sliding window), else 0
    uint pad;
};
struct ChunkInfo {
    uint first, n_tokens;   // in the batch
    int pos0;
    uint table;             // word offset of its block table from the run's start
    uint mask_lo, mask_hi;  // word offset of uvec2 masks[n_tokens] (a tree of tokens), or 0; mask_hi unused
    uint exact, boundary;   // two tiers, unused with one
};

#ifdef __cplusplus
}  // namespace quern::vulkan
#undef ADDR
#endif
#endif
