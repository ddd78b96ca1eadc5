// SPDX-License-Identifier: Apache-2.0
#version 460
// A row a group: x / sqrt(mean(x^2) + eps) * w. Sums by vectors of 4 within a thread, then the subgroup, then the subgroups in order.
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#include "ops/base.glsl"

layout(push_constant) uniform Push { NormPush p; };
shared float s_sum[WG];

void main() {
    const uint tid = gl_LocalInvocationID.x, row = gl_WorkGroupID.x, n4 = p.n / 4u;
    const uint from = listed_row(p.run, p.list, row) * (p.x_stride / 4u), to = row * (p.to_stride / 4u);
    float sum = 0.0;
    for (uint i = tid; i < n4; i += WG) {
        const vec4 x = F4(p.x).v[from + i];
        sum += dot(x, x);
    }
    const uint tail = n4 * 4u + tid;   // the last n mod 4
    const float last = tail < p.n ? F1(p.x).v[from * 4u + tail] : 0.0;
    sum = subgroupAdd(fma(last, last, sum));
    if (subgroupElect()) s_sum[gl_SubgroupID] = sum;
    barrier();
    sum = 0.0;
    for (uint i = 0u; i < gl_NumSubgroups; ++i) sum += s_sum[i];
    const float inv = 1.0 / sqrt(sum / float(p.n) + p.eps);
    const bool weighted = !is_null(p.weight);
    for (uint i = tid; i < n4; i += WG) {
        const vec4 x = F4(p.x).v[from + i] * inv;
        F4(p.to).v[to + i] = weighted ? x * F4(p.weight).v[i] : x;
    }
    if (tail < p.n) F1(p.to).v[to * 4u + tail] = weighted ? last * inv * F1(p.weight).v[tail] : last * inv;
}
