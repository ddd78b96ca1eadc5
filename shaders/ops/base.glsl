// SPDX-License-Identifier: Apache-2.0
// What the kernels without weights share: memory by address, the run block, where pages lie.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require
#include "args.h"
#include "args_ops.h"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;
layout(constant_id = 0) const uint WG = 64;

layout(buffer_reference, std430, buffer_reference_align = 16) buffer F1 { float v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer F2 { vec2 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer F4 { vec4 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer U1 { uint v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer U2 { uvec2 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer U4 { uvec4 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer Run { RunHeader h; };

bool is_null(uvec2 a) { return (a.x | a.y) == 0u; }

/// Row i of those that the list names.
uint listed_row(uvec2 run, uint list, uint i) { return list == 0u ? i : U1(run).v[U1(run).v[list] + i]; }
/// Entry i of a list of entries of 16 bytes.
uvec4 listed(uvec2 run, uint list, uint i) { return U4(run).v[U1(run).v[list] / 4u + i]; }

TokenInfo token_info(uvec2 run, uint i) {
    const uvec4 w = U4(run).v[Run(run).h.info / 4u + i];
    return TokenInfo(w.x, int(w.y), int(w.z), w.w);
}
ChunkInfo chunk_info(uvec2 run, uint i) {
    const uint at = Run(run).h.chunks / 4u + 2u * i;
    const uvec4 a = U4(run).v[at], b = U4(run).v[at + 1u];
    return ChunkInfo(a.x, a.y, int(a.z), a.w, int(b.x), b.y, b.z, b.w);
}
uvec2 memory_of(uint source, uvec2 pages, uvec2 exact, uvec2 staging) {
    return source == kSourcePages ? pages : source == kSourceExact ? exact : staging;
}
