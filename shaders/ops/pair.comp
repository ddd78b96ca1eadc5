// SPDX-License-Identifier: Apache-2.0
#version 460
// Two rows to one: their sum, or the gated activations of kernels/cpu/ops/glu.inl.
#extension GL_GOOGLE_include_directive : require
#include "ops/base.glsl"
#include "ops/math.glsl"

layout(constant_id = 1) const uint OP = 0;   // ops.h, PairOp
layout(push_constant) uniform Push { PairPush p; };

float pair(float a, float b) {
    if (OP == 0u) return a + b;
    // silu(x) = x / (1 + exp(-x)); gelu's tanh form equals x / (1 + exp(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3)
    const float x = OP == 1u ? -a : a * -1.5957691216 * fma(a * a, 0.044715, 1.0);
    return a / (1.0 + exp_any(min(x, 88.0))) * b;   // finite, so that no device divides by infinity
}

void main() {
    const uint row = gl_WorkGroupID.x, i = gl_WorkGroupID.y * WG + gl_LocalInvocationID.x;
    const uint a = row * p.a_stride, b = row * p.b_stride, to = row * p.to_stride;
    if (4u * i + 4u <= p.n) {
        const vec4 x = F4(p.a).v[a / 4u + i], y = F4(p.b).v[b / 4u + i];
        F4(p.to).v[to / 4u + i] = vec4(pair(x.x, y.x), pair(x.y, y.y), pair(x.z, y.z), pair(x.w, y.w));
    } else {
        for (uint j = 4u * i; j < p.n; ++j) F1(p.to).v[to + j] = pair(F1(p.a).v[a + j], F1(p.b).v[b + j]);
    }
}
