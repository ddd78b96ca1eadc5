// SPDX-License-Identifier: Apache-2.0
// Rows of a packed matrix, one a token. A thread decodes its quad of four rows and keeps one: the bytes are the same.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "args.h"
#include "args_matmul.h"
#include "decode/type.glsl"

layout(local_size_x = 64, local_size_y = 1, local_size_z = 1) in;
layout(push_constant, std430) uniform Push { EmbedPush args; };

void put(uint at, uint k, vec4 v) {
#ifdef FLOAT_WEIGHTS
    F1InOut y = F1InOut(args.y);
    [[unroll]] for (uint i = 0; i < 4; ++i)
        if (k + i < args.n_k) y.v[at + k + i] = v[i];
#else
    F4Out(args.y).v[(at + k) / 4] = v;
#endif
}

void main() {
    const uint b = gl_GlobalInvocationID.x >> 2, g = gl_GlobalInvocationID.x & 3, i = gl_WorkGroupID.y;
    if (32 * b >= args.n_k || i >= U1(args.run).v[0]) return;
    // RunHeader: word 0 is n_tokens, word 4 where they are.
    const uint token = U1(args.run).v[U1(args.run).v[4] + i], row = token - args.first_row;
    if (token < args.first_row || row >= args.n_rows) return;
    const uint p = row / 16 * args.panel_stride, rq = row % 16 / 4, r4 = row % 4;
    vec4 w[8];
#ifdef FLOAT_WEIGHTS
    weights(Head(0), fetch_below(args.w, p, b, rq, g, args.n_k), g, w);
#else
    weights(head(args.w, p, b, rq), fetch(args.w, p, b, rq, g), g, w);
#endif
    vec4 lo, hi;
    [[unroll]] for (uint j = 0; j < 4; ++j) {
        lo[j] = w[j][r4];
        hi[j] = w[4 + j][r4];
    }
    const uint k = 32 * b + 4 * g;
    put(i * args.y_stride, k, lo);
    put(i * args.y_stride, k + 16, hi);
}
