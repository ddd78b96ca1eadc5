#version 460
// SPDX-License-Identifier: Apache-2.0
// 64 n packed dot products of four int8 a thread, each added to its own operand, in 16 chains: x += sum of bytes of x by
// bytes of `ones`.
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_spirv_intrinsics : require
#include "probe/peak.glsl"

// OpSDotKHR with operands of PackedVectorFormat4x8Bit.
spirv_instruction(extensions = ["SPV_KHR_integer_dot_product"], capabilities = [6018, 6019], id = 4450)
int dot_i8(int a, int b, spirv_literal int format);

void main() {
    int acc[16];
    [[unroll]] for (int i = 0; i < 16; ++i) acc[i] = 4 * i + int(gl_LocalInvocationID.x & 3);
    for (uint k = 0; k < n; ++k)
        [[unroll]] for (uint j = 0; j < 4; ++j)
            [[unroll]] for (uint i = 0; i < 16; ++i) acc[i] += dot_i8(acc[i], ones, 0);
    int sum = 0;
    [[unroll]] for (uint i = 0; i < 16; ++i) sum += acc[i];
    Words(to).v[gl_GlobalInvocationID.x] = uint(sum);
}
