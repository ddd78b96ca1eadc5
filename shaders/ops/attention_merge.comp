// SPDX-License-Identifier: Apache-2.0
#version 460
// A token and head a group: the partials of its segments, weighted by exp(max - greatest max), summed in order of the list, and
// divided. A sink is a partial of weight 1 and output 0.
#extension GL_GOOGLE_include_directive : require
#include "ops/base.glsl"
#include "ops/math.glsl"

layout(constant_id = 1) const uint D = 128;
layout(push_constant) uniform Push { MergePush p; };

void main() {
    const uint token = gl_WorkGroupID.x, head = gl_WorkGroupID.y;
    const uvec4 m = listed(p.run, p.list, token);   // AttnMerge
    bool any_ = false;
    float most = 0.0;
    for (uint i = 0u; i < m.z; ++i) {
        const vec2 ml = F2(p.ml).v[(m.x + i * m.y) * p.n_head + head];
        if (ml.y == 0.0) continue;
        most = any_ ? max(most, ml.x) : ml.x;
        any_ = true;
    }
    const bool sunk = any_ && !is_null(p.sinks);
    const float sink = sunk ? F1(p.sinks).v[head] : 0.0;
    if (sunk) most = max(most, sink);
    for (uint d = gl_LocalInvocationID.x; d < D; d += WG) {
        float sum = 0.0, l = 0.0;
        for (uint i = 0u; i < m.z; ++i) {
            const uint row = (m.x + i * m.y) * p.n_head + head;
            const vec2 ml = F2(p.ml).v[row];
            if (ml.y == 0.0) continue;   // saw nothing: no trace
            const float w = exp_neg(ml.x - most);
            sum = fma(F1(p.parts).v[row * D + d], w, sum);
            l = fma(ml.y, w, l);
        }
        if (sunk) l += exp_neg(sink - most);
        F1(p.to).v[token * p.to_stride + head * D + d] = any_ ? sum / l : 0.0;
    }
}
