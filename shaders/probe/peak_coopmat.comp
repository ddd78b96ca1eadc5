#version 460
// SPDX-License-Identifier: Apache-2.0
// 32 n products of 16 x 16 x 16 a subgroup in 8 chains, F16 to F32; word 0 counts the subgroups, then come their sums, 256
// words each.
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_shader_subgroup_basic : require
#include "probe/peak.glsl"

layout(buffer_reference, std430, buffer_reference_align = 16) writeonly buffer Sums { float v[]; };
layout(constant_id = 1) const uint SUBGROUPS = 8;  // of a group

void main() {
    const coopmat<float16_t, gl_ScopeSubgroup, 16, 16, gl_MatrixUseA> a =
        coopmat<float16_t, gl_ScopeSubgroup, 16, 16, gl_MatrixUseA>(float16_t(scale));
    const coopmat<float16_t, gl_ScopeSubgroup, 16, 16, gl_MatrixUseB> b =
        coopmat<float16_t, gl_ScopeSubgroup, 16, 16, gl_MatrixUseB>(float16_t(step));
    coopmat<float, gl_ScopeSubgroup, 16, 16, gl_MatrixUseAccumulator> acc[8];
    [[unroll]] for (uint i = 0; i < 8; ++i)
        acc[i] = coopmat<float, gl_ScopeSubgroup, 16, 16, gl_MatrixUseAccumulator>(float(i));
    for (uint k = 0; k < n; ++k)
        [[unroll]] for (uint j = 0; j < 4; ++j)
            [[unroll]] for (uint i = 0; i < 8; ++i) acc[i] = coopMatMulAdd(a, b, acc[i]);
    [[unroll]] for (uint i = 1; i < 8; ++i) acc[0] += acc[i];
    if (gl_SubgroupID < SUBGROUPS)
        coopMatStore(acc[0], Sums(to).v, 4 + 256 * (gl_WorkGroupID.x * SUBGROUPS + gl_SubgroupID), 16, gl_CooperativeMatrixLayoutRowMajor);
    if (gl_SubgroupInvocationID == 0) atomicAdd(Words(to).v[0], 1);
}
