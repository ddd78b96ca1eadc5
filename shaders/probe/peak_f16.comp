#version 460
// SPDX-License-Identifier: Apache-2.0
// 8192 n multiply-adds a thread in 32 chains; F16 holds their small sums exactly.
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#include "probe/peak.glsl"

void main() {
    uint total = 0;
    for (uint k = 0; k < n; ++k) {
        f16vec4 acc[8];
        [[unroll]] for (uint i = 0; i < 8; ++i)
            acc[i] = f16vec4(vec4(0, 1, 2, 3) + float(4 * i + (gl_LocalInvocationID.x & 3)));
        for (uint j = 0; j < 64; ++j)
            [[unroll]] for (uint u = 0; u < 4; ++u)
                [[unroll]] for (uint i = 0; i < 8; ++i) acc[i] = fma(acc[i], f16vec4(scale), f16vec4(step));
        vec4 sum = vec4(0);
        [[unroll]] for (uint i = 0; i < 8; ++i) sum += vec4(acc[i]);
        total += uint(sum.x + sum.y + sum.z + sum.w);
    }
    Words(to).v[gl_GlobalInvocationID.x] = total;
}
