// SPDX-License-Identifier: Apache-2.0
#version 460
// The k best of up to COUNT inputs, best first: a bitonic sort in shared memory, or a tree where k is 1.
#extension GL_GOOGLE_include_directive : require
#include "ops/base.glsl"

layout(constant_id = 1) const uint COUNT = 2048;
layout(constant_id = 2) const uint FROM_PAIRS = 0;
layout(push_constant) uniform Push { TopPush p; };

const uint kNothing = 0xffffffffu;
shared uint s_key[COUNT], s_index[COUNT];

/// Larger for larger values; both zeros alike, NaN least of all.
uint key_of(uint bits) {
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0u;
    if (bits == 0x80000000u) bits = 0u;
    return (bits & 0x80000000u) != 0u ? ~bits : bits | 0x80000000u;
}
uint bits_of(uint key) { return (key & 0x80000000u) != 0u ? key & 0x7fffffffu : ~key; }

bool better(uint a, uint b) { return s_key[a] > s_key[b] || (s_key[a] == s_key[b] && s_index[a] < s_index[b]); }
void put(uint at, uint key, uint index) {
    s_key[at] = key;
    s_index[at] = key == 0u ? kNothing : index;
}
void swap(uint a, uint b) {
    const uint key = s_key[a], index = s_index[a];
    put(a, s_key[b], s_index[b]);
    put(b, key, index);
}

/// s_...[0] becomes the best of the first n, a power of two.
void find_best(uint n) {
    for (uint half_ = n / 2u; half_ > 0u; half_ /= 2u) {
        for (uint i = gl_LocalInvocationID.x; i < half_; i += WG)
            if (better(i + half_, i)) put(i, s_key[i + half_], s_index[i + half_]);
        barrier();
    }
}
void sort(uint n) {
    for (uint size = 2u; size <= n; size *= 2u)
        for (uint stride = size / 2u; stride > 0u; stride /= 2u) {
            for (uint x = gl_LocalInvocationID.x; x < n / 2u; x += WG) {
                const uint i = 2u * x - (x & (stride - 1u)), j = i + stride;
                if ((i & size) == 0u ? better(j, i) : better(i, j)) swap(i, j);
            }
            barrier();
        }
}

void main() {
    const uint tid = gl_LocalInvocationID.x, first = gl_WorkGroupID.x * COUNT, row = gl_WorkGroupID.y;
    const uint here = min(p.n - first, COUNT);
    uint n = 1u;
    while (n < here) n *= 2u;
    for (uint i = tid; i < n; i += WG) {
        uvec2 x = uvec2(kNothing, 0x7fc00000u);
        if (i < here) x = FROM_PAIRS != 0u ? U2(p.from).v[row * p.in_stride + first + i] : uvec2(first + i, U1(p.from).v[row * p.in_stride + first + i]);
        put(i, x.x == kNothing ? 0u : key_of(x.y), x.x);
    }
    barrier();
    if (p.k == 1u) find_best(n);
    else sort(n);
    const uint to = row * p.to_stride + gl_WorkGroupID.x * p.k;
    for (uint i = tid; i < p.k; i += WG) {
        const bool is = i < n && s_key[i] != 0u;
        const uint none = p.k == 1u && gl_NumWorkGroups.x == 1u ? 0u : kNothing;
        U2(p.to).v[to + i] = is ? uvec2(s_index[i], bits_of(s_key[i])) : uvec2(none, 0x7fc00000u);
    }
}
