// SPDX-License-Identifier: Apache-2.0
#version 460
// Rows of a list, one behind the other.
#extension GL_GOOGLE_include_directive : require
#include "ops/base.glsl"

layout(push_constant) uniform Push { GatherPush p; };

void main() {
    const uint row = gl_WorkGroupID.x, i = gl_WorkGroupID.y * WG + gl_LocalInvocationID.x;
    const uint from = listed_row(p.run, p.list, row) * (p.x_stride / 4u), to = row * (p.to_stride / 4u);
    if (4u * i + 4u <= p.n) F4(p.to).v[to + i] = F4(p.x).v[from + i];
    else for (uint j = 4u * i; j < p.n; ++j) F1(p.to).v[to * 4u + j] = F1(p.x).v[from * 4u + j];
}
