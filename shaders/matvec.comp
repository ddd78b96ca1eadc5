// SPDX-License-Identifier: Apache-2.0
// Matrix times a few columns, bound by the bytes of the matrix. SPLITS teams of 16 threads share a panel of 16 rows, each
// taking every SPLITS-th run of UNROLL blocks: all loads of a run are on their way before the first is used. Nothing is
// passed through shared memory but the sums at the end: activations are the same for all panels and come from the cache.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "lib/matmul.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;   // 16 * SPLITS * PANELS
layout(constant_id = 1) const uint SPLITS = 4;
layout(constant_id = 2) const uint PANELS = 1;   // of a workgroup
layout(constant_id = 3) const uint COLS = 1;     // of a workgroup
layout(constant_id = 4) const uint UNROLL = 4;   // divides HEAD_UNIT and the number of blocks
layout(constant_id = 5) const uint MATRICES = 1; // 2: a GLU of two, GELU says which
layout(constant_id = 6) const uint GELU = 0;
layout(constant_id = 7) const uint WHOLE = 1;    // 0: rows of floats end in the middle of a block; UNROLL is 1
const uint ACCS = COLS * MATRICES;               // [column][matrix]
const uint CHUNK = ACCS < 4 ? ACCS : 4;          // sums that go through shared memory at once

shared vec4 part[CHUNK * gl_WorkGroupSize.x];
vec4 acc[ACCS];   // of this thread's four rows

#ifdef ROUNDED
/// One block's products with every column. first: of acc.
void multiply(uint first, Head h, Raw r, uint b, uint g, uint col0, uint n_cols) {
    uvec4 lo, hi;
    codes(r, g, lo, hi);
    [[unroll]] for (uint c = 0; c < COLS; ++c) {
        if (COLS > 1 && c >= n_cols) continue;
        const uint at = act_codes(col0 + c, b) + g;
        const uint xl = U1(args.x).v[at], xh = U1(args.x).v[at + 4];
        const float d = F1(args.x).v[act_scale(col0 + c, b)];
        const uint a = first + c * MATRICES;
#ifdef HAS_HALF
        acc[a] = fma(vec4(dot4(lo, xl)), scale(h, r, 0) * d, acc[a]);
        acc[a] = fma(vec4(dot4(hi, xh)), scale(h, r, 1) * d, acc[a]);
#ifdef HAS_MIN
        acc[a] = fma(minimum(h, r, 0), vec4(d * float(dot4(0x01010101u, xl))), acc[a]);
        acc[a] = fma(minimum(h, r, 1), vec4(d * float(dot4(0x01010101u, xh))), acc[a]);
#endif
#else
        acc[a] = fma(vec4(dot4(lo, xl) + dot4(hi, xh)), scale(h, r, 0) * d, acc[a]);
#ifdef HAS_MIN
        acc[a] = fma(minimum(h, r, 0), vec4(d * float(dot4(0x01010101u, xl) + dot4(0x01010101u, xh))), acc[a]);
#endif
#endif
    }
}
#else
/// acc[a] += the block's values times eight activations. Scales are applied to sums of products with bare codes.
void multiply_column(uint a, Head h, Raw r, vec4 w[8], vec4 xl, vec4 xh) {
#ifdef FLOAT_WEIGHTS
    [[unroll]] for (uint i = 0; i < 4; ++i) acc[a] = fma(w[i], vec4(xl[i]), acc[a]);
    [[unroll]] for (uint i = 0; i < 4; ++i) acc[a] = fma(w[4 + i], vec4(xh[i]), acc[a]);
#else
    vec4 lo = w[0] * xl.x, hi = w[4] * xh.x;
    [[unroll]] for (uint i = 1; i < 4; ++i) {
        lo = fma(w[i], vec4(xl[i]), lo);
        hi = fma(w[4 + i], vec4(xh[i]), hi);
    }
#ifdef HAS_HALF
    acc[a] = fma(scale(h, r, 0), lo, acc[a]);
    acc[a] = fma(scale(h, r, 1), hi, acc[a]);
#else
    acc[a] = fma(scale(h, r, 0), lo + hi, acc[a]);
#endif
#ifdef HAS_MIN
    const float sl = (xl.x + xl.y) + (xl.z + xl.w), sh = (xh.x + xh.y) + (xh.z + xh.w);
#ifdef HAS_HALF
    acc[a] = fma(minimum(h, r, 0), vec4(sl), acc[a]);
    acc[a] = fma(minimum(h, r, 1), vec4(sh), acc[a]);
#else
    acc[a] = fma(minimum(h, r, 0), vec4(sl + sh), acc[a]);
#endif
#endif
#endif
}
void bare_codes(Raw r, uint g, out vec4 w[8]) {
#ifdef FLOAT_WEIGHTS
    [[unroll]] for (uint i = 0; i < 8; ++i) w[i] = value(r.v[i]);
#else
    uvec4 lo, hi;
    codes(r, g, lo, hi);
    [[unroll]] for (uint i = 0; i < 4; ++i) {
        w[i] = signed_bytes(lo, i);
        w[4 + i] = signed_bytes(hi, i);
    }
#endif
}
void multiply(uint first, Head h, Raw r, uint b, uint g, uint col0, uint n_cols) {
    vec4 w[8];
    bare_codes(r, g, w);
    [[unroll]] for (uint c = 0; c < COLS; ++c) {
        if (COLS > 1 && c >= n_cols) continue;
        const uint k = 32 * b + 4 * g;
        const bool whole = WHOLE != 0;
        const vec4 xl = whole ? activations(col0 + c, k) : activations_below(col0 + c, k);
        const vec4 xh = whole ? activations(col0 + c, k + 16) : activations_below(col0 + c, k + 16);
        multiply_column(first + c * MATRICES, h, r, w, xl, xh);
    }
}
#endif

Raw fetch_block(uvec2 w, uint p, uint b, uint rq, uint g) {
#ifdef FLOAT_WEIGHTS
    if (WHOLE == 0) return fetch_below(w, p, b, rq, g, args.n_k);
#endif
    return fetch(w, p, b, rq, g);
}

void sum_panel(uint p, uint split, uint rq, uint g, uint col0, uint n_cols) {
    for (uint b = split * UNROLL; 32 * b < args.n_k; b += SPLITS * UNROLL) {
        Head h[MATRICES];
        Raw r[MATRICES * UNROLL];
        [[unroll]] for (uint m = 0; m < MATRICES; ++m) {
            const uvec2 w = m == 0 ? args.w : args.w_up;
            h[m] = head(w, p, b, rq);
            [[unroll]] for (uint u = 0; u < UNROLL; ++u) r[m * UNROLL + u] = fetch_block(w, p, b + u, rq, g);
        }
        [[unroll]] for (uint u = 0; u < UNROLL; ++u)
            [[unroll]] for (uint m = 0; m < MATRICES; ++m)
                multiply(m, h[m], r[m * UNROLL + u], b + u, g, col0, n_cols);
    }
}

vec4 glu(vec4 gate, vec4 up) {
    if (GELU == 0) return gate / (1.0 + exp(-gate)) * up;
    // x * (1 + tanh t) / 2 as x * (1 - 1 / (1 + exp(2 t))): no overflow makes a NaN.
    const vec4 t = 0.7978845608 * gate * (1.0 + 0.044715 * gate * gate);
    return gate * (1.0 - 1.0 / (1.0 + exp(2.0 * t))) * up;
}

void main() {
    const uint t = gl_LocalInvocationIndex, threads = gl_WorkGroupSize.x;
    const uint rq = t & 3, g = (t >> 2) & 3, split = (t >> 4) % SPLITS;
    const uint panel0 = gl_WorkGroupID.x * PANELS, panel = panel0 + (t >> 4) / SPLITS;
    const uint col0 = gl_WorkGroupID.y * COLS, all = n_columns();
    if (col0 >= all) return;   // all threads of a group alike
    const uint n_cols = min(all - col0, COLS);

    [[unroll]] for (uint a = 0; a < ACCS; ++a) acc[a] = vec4(0);
    if (16 * panel < args.n_rows) sum_panel(panel * args.panel_stride, split, rq, g, col0, n_cols);

    // Sums over g, where thread g takes one of up to four, then over the splits.
    [[unroll]] for (uint a0 = 0; a0 < ACCS; a0 += CHUNK) {
        if (a0 > 0) barrier();
        [[unroll]] for (uint a = 0; a < CHUNK; ++a) part[a * threads + t] = a0 + a < ACCS ? acc[a0 + a] : vec4(0);
        barrier();
        if (g < CHUNK) {
            const uint at = g * threads + (t & ~15u) + rq;
            part[at] = (part[at] + part[at + 4]) + (part[at + 8] + part[at + 12]);
        }
        barrier();
        const uint results = CHUNK / MATRICES;   // columns in this chunk
        for (uint o = t; o < PANELS * 4 * results; o += threads) {
            const uint row4 = o & 3, c = (o >> 2) % results, local = (o >> 2) / results;
            vec4 sum[MATRICES];
            [[unroll]] for (uint m = 0; m < MATRICES; ++m) {
                const uint at = (c * MATRICES + m) * threads + local * SPLITS * 16 + row4;
                sum[m] = part[at];
                for (uint s = 1; s < SPLITS; ++s) sum[m] += part[at + 16 * s];
            }
            const uint column = a0 / MATRICES + c;
            if (column >= n_cols) continue;
            const vec4 y = MATRICES == 1 ? sum[0] : glu(sum[0], sum[MATRICES - 1]);
            finish(y, 16 * (panel0 + local) + 4 * row4, col0 + column);
        }
    }
}
