#version 460
// SPDX-License-Identifier: Apache-2.0
// to[i] = from[i] xor flip, 16 bytes a thread and step: what a device reads and writes at most.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require

layout(constant_id = 0) const uint THREADS = 256;
layout(constant_id = 1) const uint STEPS = 4;  // loads under way at once
layout(local_size_x_id = 0) in;

layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer From { uvec4 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) writeonly buffer To { uvec4 v[]; };
layout(push_constant) uniform Push {
    uvec2 from, to;
    uint n;  // of 16 bytes
    uint flip;
};

void main() {
    const uint group = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x;
    const uint first = group * THREADS * STEPS + gl_LocalInvocationID.x;
    uvec4 v[STEPS];
    for (uint s = 0; s < STEPS; ++s) v[s] = first + s * THREADS < n ? From(from).v[first + s * THREADS] : uvec4(0);
    for (uint s = 0; s < STEPS; ++s)
        if (first + s * THREADS < n) To(to).v[first + s * THREADS] = v[s] ^ flip;
}
