#version 460
// SPDX-License-Identifier: Apache-2.0
// 128 n multiply-adds a thread in 32 chains.
#extension GL_GOOGLE_include_directive : require
#include "probe/peak.glsl"

void main() {
    vec4 acc[8];
    [[unroll]] for (uint i = 0; i < 8; ++i) acc[i] = vec4(0, 1, 2, 3) + float(4 * i + (gl_LocalInvocationID.x & 3));
    for (uint k = 0; k < n; ++k)
        [[unroll]] for (uint j = 0; j < 4; ++j)
            [[unroll]] for (uint i = 0; i < 8; ++i) acc[i] = fma(acc[i], vec4(scale), vec4(step));
    vec4 sum = vec4(0);
    [[unroll]] for (uint i = 0; i < 8; ++i) sum += acc[i];
    Words(to).v[gl_GlobalInvocationID.x] = uint(sum.x + sum.y + sum.z + sum.w);
}
