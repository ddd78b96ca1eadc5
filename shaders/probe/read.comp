#version 460
// SPDX-License-Identifier: Apache-2.0
// A thread's word is the exclusive or of all that it read: what a device reads at most, 16 bytes a thread and load.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require

layout(constant_id = 0) const uint THREADS = 256;
layout(constant_id = 1) const uint STEPS = 4;  // loads under way at once
layout(local_size_x_id = 0) in;

layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer From { uvec4 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) writeonly buffer To { uint v[]; };
layout(push_constant) uniform Push {
    uvec2 from, to;
    uint n;       // of 16 bytes, a multiple of THREADS * STEPS * rounds
    uint rounds;  // times STEPS loads a thread
};

void main() {
    const uint group = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x;
    uint at = group * THREADS * STEPS * rounds + gl_LocalInvocationID.x;
    uvec4 sum = uvec4(0);
    for (uint r = 0; r < rounds; ++r, at += THREADS * STEPS) {
        uvec4 v[STEPS];
        [[unroll]] for (uint s = 0; s < STEPS; ++s) v[s] = From(from).v[at + s * THREADS];
        [[unroll]] for (uint s = 0; s < STEPS; ++s) sum ^= v[s];
    }
    To(to).v[group * THREADS + gl_LocalInvocationID.x] = sum.x ^ sum.y ^ sum.z ^ sum.w;
}
