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

/// A run's numbers. Behind it, each 16-byte aligned, at word offsets (of 4 bytes) from its start: int tokens[n_tokens];
/// TokenInfo info[n_tokens]; ChunkInfo chunks[n_chunks]; uint outputs[n_outputs]; float rope[n_tokens][n_rot] (cos, sin a
/// pair); uint tables[]; and the lists of work of args_ops.h, each as long as its dispatch is wide. An offset of 0: no such list.
struct RunHeader {
    uint n_tokens, n_outputs, n_chunks, n_rot;
    uint tokens, info, chunks, outputs, rope, tables;
    uint merges;            // AttnMerge[n_tokens]
    uint stage;             // PageCopy[], before a layer's rope_store
    uint segments[4];       // AttnSegment[], a list for each attention kernel that the record has
    uint quantize, keep;    // KvGroup[] and PageCopy[], after a layer's rope_store
    uint pad0, pad1;
};
struct TokenInfo {
    uint chunk;   // index
    int pos;      // where its key lies: chunk's pos0 + index in it
    int first;    // first position that it sees (sliding window), else 0
    uint pad;
};
/// New keys and values go to memory `source` (kSource...), position p in page table[(p - origin) / page_tokens].
struct ChunkInfo {
    uint first, n_tokens;   // in the batch
    int pos0;
    uint table;             // word offset of its block table from the run's start
    int origin;             // position at which that table begins, a multiple of 16; 0 with one tier
    uint source;            // kSourcePages with one tier, else the ring or the staging memory
    uint sink;              // two tiers: word offset of the id of the page in the exact pool of positions 0 to 15, else 0
    uint masks;             // word offset of uvec2 masks[n_tokens] (a tree of tokens; x the low bits), or 0
};

#ifdef __cplusplus
}  // namespace quern::vulkan
#undef ADDR
#endif
#endif
