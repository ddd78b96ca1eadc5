// SPDX-License-Identifier: Apache-2.0
#version 460
// A token and head a group: the partials of its segments, weighted by exp(max - greatest max), summed in order of the list, and
// divided. A sink is a partial of weight 1 and output 0. A partial that saw nothing has the
// maximum kNone, so its weight is 0 beside any other.
#extension GL_GOOGLE_include_directive : require
#include "ops/base.glsl"
#include "ops/math.glsl"

layout(constant_id = 1) const uint D = 128;
layout(push_constant) uniform Push { MergePush p; };

const uint PER = (D + WG - 1u) / WG;   // channels a thread
const uint AT_ONCE = 8;                // partials under way
const float kNone = -3.402823466e38;
shared float s_weight[WG], s_sum[WG];

void main() {
    const uint tid = gl_LocalInvocationID.x, token = gl_WorkGroupID.x, head = gl_WorkGroupID.y;
    const uvec4 m = listed(p.run, p.list, token);   // AttnMerge
    float most = kNone;
    for (uint i = tid; i < m.z; i += WG) {
        most = max(most, F2(p.ml).v[(m.x + i * m.y) * p.n_head + head].x);
    }
    s_weight[tid] = most;
    barrier();
    [[unroll]] for (uint i = 0u; i < WG; ++i) most = max(most, s_weight[i]);
    const bool seen = most != kNone, sunk = seen && !is_null(p.sinks);
    const float sink = sunk ? F1(p.sinks).v[head] : 0.0;
    if (sunk) most = max(most, sink);

    float acc[PER], l = 0.0;
    [[unroll]] for (uint c = 0u; c < PER; ++c) acc[c] = 0.0;
    for (uint base = 0u; base < m.z; base += WG) {
        const uint n = min(m.z - base, WG);
        float weight = 0.0, sum = 0.0;
        if (tid < n) {
            const vec2 ml = F2(p.ml).v[(m.x + (base + tid) * m.y) * p.n_head + head];
            weight = exp_neg(ml.x - most);
            sum = ml.y * weight;
        }
        barrier();
        s_weight[tid] = weight;
        s_sum[tid] = sum;
        barrier();
        for (uint i = 0u; i < n; i += AT_ONCE) {
            float x[AT_ONCE * PER];
            [[unroll]] for (uint e = 0u; e < AT_ONCE; ++e) {
                const uint row = (m.x + (base + min(i + e, n - 1u)) * m.y) * p.n_head + head;
                [[unroll]] for (uint c = 0u; c < PER; ++c) x[e * PER + c] = F1(p.parts).v[row * D + min(tid + c * WG, D - 1u)];
            }
            [[unroll]] for (uint e = 0u; e < AT_ONCE; ++e) {   // beyond n the weight is 0
                l += s_sum[i + e];
                [[unroll]] for (uint c = 0u; c < PER; ++c) acc[c] = fma(x[e * PER + c], s_weight[i + e], acc[c]);
            }
        }
    }
    if (sunk) l += exp_neg(sink - most);
    [[unroll]] for (uint c = 0u; c < PER; ++c) {
        const uint d = tid + c * WG;
        if (d < D) F1(p.to).v[token * p.to_stride + head * D + d] = seen ? acc[c] / l : 0.0;
    }
}
