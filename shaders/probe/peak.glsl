// SPDX-License-Identifier: Apache-2.0
// What the probes of arithmetic share: one word a thread, in which every operation shows.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require

layout(constant_id = 0) const uint THREADS = 256;
layout(local_size_x_id = 0) in;

layout(buffer_reference, std430, buffer_reference_align = 4) buffer Words { uint v[]; };
// `scale` and `step` are 1, which the compiler cannot know.
layout(push_constant) uniform Push {
    uvec2 to;
    uint n;
    float scale, step;
    int ones;
};
