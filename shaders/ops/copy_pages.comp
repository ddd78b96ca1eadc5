// SPDX-License-Identifier: Apache-2.0
#version 460
// Whole pages of one layer from one memory to another.
#extension GL_GOOGLE_include_directive : require
#include "ops/base.glsl"

layout(push_constant) uniform Push { CopyPagesPush p; };

void main() {
    const uvec4 job = listed(p.run, p.list, gl_WorkGroupID.x);   // PageCopy
    const uvec2 from = memory_of(job.x, p.pages, p.exact, p.staging), to = memory_of(job.z, p.pages, p.exact, p.staging);
    const uint n = p.page_bytes / 16u, step = gl_NumWorkGroups.y * WG;
    for (uint i = gl_WorkGroupID.y * WG + gl_LocalInvocationID.x; i < n; i += step) U4(to).v[job.w * n + i] = U4(from).v[job.y * n + i];
}
