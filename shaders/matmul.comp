// SPDX-License-Identifier: Apache-2.0
// Matrix times many columns. A workgroup makes 8 * ROW_THREADS rows of 4 * COL_THREADS columns: it decodes a 32-block of its
// panels into shared memory, each weight once, beside the activations, while the next block is already on its way, and a
// thread multiplies 8 rows by 4 columns from there.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "lib/matmul.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;   // ROW_THREADS * COL_THREADS
layout(constant_id = 1) const uint ROW_THREADS = 16;   // even, at most 16
layout(constant_id = 2) const uint COL_THREADS = 16;   // at least 8
const uint QUADS = 2 * ROW_THREADS;                    // rows / 4
const uint COLS = 4 * COL_THREADS;
const uint PITCH = QUADS + 1;                          // the four g of a panel write to other banks

#ifdef ROUNDED
shared uvec4 tile_w[8 * PITCH];      // [four values][quad of rows], component = row
shared vec4 tile_scale[2 * QUADS];   // [half][quad]
#ifdef HAS_MIN
shared vec4 tile_min[2 * QUADS];
#endif
shared uvec4 tile_x[COLS * 3];       // codes of a column's block; scale and scaled sums of the halves
const uint X_WORDS = 3;
#else
shared vec4 tile_w[32 * PITCH];      // [value][quad]
shared vec4 tile_x[COLS * 9];        // [column][eight times four values], one over so that columns lie in other banks
const uint X_WORDS = 8;
#endif
const uint X_LOADS = (COLS * X_WORDS + COL_THREADS * ROW_THREADS - 1) / (COL_THREADS * ROW_THREADS);   // of a thread

vec4 acc[2][4];   // quads q and q + ROW_THREADS, columns c + COL_THREADS * j

#ifdef ROUNDED
uvec4 fetch_x(uint i, uint col0, uint n_cols, uint b) {
    const uint c = i / 3, part = i % 3, column = col0 + c;
    if (c >= n_cols) return uvec4(0);
    if (part < 2) return U4(args.x).v[column * args.x_stride + 2 * b + part];
    const uint at = act_sum16(column, b);
    const float d = F1(args.x).v[act_scale(column, b)];
    const vec2 sums = vec2(int(U1(args.x).v[at]), int(U1(args.x).v[at + 1]));
#ifdef HAS_HALF
    return floatBitsToUint(vec4(d, d * sums, 0));
#else
    return floatBitsToUint(vec4(d, d * (sums.x + sums.y), 0, 0));
#endif
}
void put_x(uint i, uvec4 x) { tile_x[i] = x; }
void put_weights(Head h, Raw r, uint quad, uint g) {
    uvec4 lo, hi;
    codes(r, g, lo, hi);
    tile_w[g * PITCH + quad] = lo;
    tile_w[(4 + g) * PITCH + quad] = hi;
    if (g > 1) return;
    tile_scale[g * QUADS + quad] = scale(h, r, g);
#ifdef HAS_MIN
    tile_min[g * QUADS + quad] = minimum(h, r, g);
#endif
}
void put_no_weights(uint quad, uint g) {
    tile_w[g * PITCH + quad] = uvec4(0);
    tile_w[(4 + g) * PITCH + quad] = uvec4(0);
    if (g > 1) return;
    tile_scale[g * QUADS + quad] = vec4(0);
#ifdef HAS_MIN
    tile_min[g * QUADS + quad] = vec4(0);
#endif
}
/// Sums of the products of one half block.
ivec4 dots(uint quad, uint column, uint half_) {
    const uvec4 x = tile_x[3 * column + half_];
    ivec4 sum = ivec4(0);
    [[unroll]] for (uint i = 0; i < 4; ++i) sum += dot4(tile_w[(4 * half_ + i) * PITCH + quad], x[i]);
    return sum;
}
void multiply_tile(uint q, uint c) {
    [[unroll]] for (uint m = 0; m < 2; ++m) {
        const uint quad = q + m * ROW_THREADS;
        [[unroll]] for (uint j = 0; j < 4; ++j) {
            const uint column = c + j * COL_THREADS;
            const vec4 x = uintBitsToFloat(tile_x[3 * column + 2]);
#ifdef HAS_HALF
            [[unroll]] for (uint half_ = 0; half_ < 2; ++half_) {
                acc[m][j] = fma(vec4(dots(quad, column, half_)), tile_scale[half_ * QUADS + quad] * x.x, acc[m][j]);
#ifdef HAS_MIN
                acc[m][j] = fma(tile_min[half_ * QUADS + quad], vec4(x[1 + half_]), acc[m][j]);
#endif
            }
#else
            const ivec4 sum = dots(quad, column, 0) + dots(quad, column, 1);
            acc[m][j] = fma(vec4(sum), tile_scale[quad] * x.x, acc[m][j]);
#ifdef HAS_MIN
            acc[m][j] = fma(tile_min[quad], vec4(x.y), acc[m][j]);
#endif
#endif
        }
    }
}
#else
vec4 fetch_x(uint i, uint col0, uint n_cols, uint b) {
    const uint c = i / 8, k = 32 * b + 4 * (i % 8);
    if (c >= n_cols) return vec4(0);
#ifdef FLOAT_WEIGHTS
    return activations_below(col0 + c, k);
#else
    return activations(col0 + c, k);
#endif
}
void put_x(uint i, vec4 x) { tile_x[i / 8 * 9 + i % 8] = x; }
void put_weights(Head h, Raw r, uint quad, uint g) {
    vec4 w[8];
    weights(h, r, g, w);
    [[unroll]] for (uint i = 0; i < 8; ++i) tile_w[(4 * g + (i & 3) + (i >> 2) * 16) * PITCH + quad] = w[i];
}
void put_no_weights(uint quad, uint g) {
    [[unroll]] for (uint i = 0; i < 8; ++i) tile_w[(4 * g + (i & 3) + (i >> 2) * 16) * PITCH + quad] = vec4(0);
}
void multiply_tile(uint q, uint c) {
    for (uint k4 = 0; k4 < 8; ++k4) {
        vec4 x[4];
        [[unroll]] for (uint j = 0; j < 4; ++j) x[j] = tile_x[(c + j * COL_THREADS) * 9 + k4];
        [[unroll]] for (uint i = 0; i < 4; ++i) {
            const uint at = (4 * k4 + i) * PITCH + q;
            const vec4 w0 = tile_w[at], w1 = tile_w[at + ROW_THREADS];
            [[unroll]] for (uint j = 0; j < 4; ++j) {
                acc[0][j] = fma(w0, vec4(x[j][i]), acc[0][j]);
                acc[1][j] = fma(w1, vec4(x[j][i]), acc[1][j]);
            }
        }
    }
}
#endif

Raw fetch_weights(uint p, uint b, uint rq, uint g) {
#ifdef FLOAT_WEIGHTS
    return fetch_below(args.w, p, b, rq, g, args.n_k);
#else
    return fetch(args.w, p, b, rq, g);
#endif
}

void main() {
    const uint t = gl_LocalInvocationIndex, threads = gl_WorkGroupSize.x;
    const uint rq = t & 3, g = (t >> 2) & 3, quad = (t >> 4) * 4 + rq;   // what this thread decodes
    const uint row0 = gl_WorkGroupID.x * QUADS * 4, col0 = gl_WorkGroupID.y * COLS, all = n_columns();
    if (col0 >= all) return;   // all threads of a group alike
    const uint n_cols = min(all - col0, COLS), n_blocks = (args.n_k + 31) / 32;
    const uint panel = row0 / 16 + (t >> 4), p = panel * args.panel_stride;
    const bool decodes = quad < QUADS, has_panel = decodes && 16 * panel < args.n_rows;
    const uint q = t % ROW_THREADS, c = t / ROW_THREADS;                // what it multiplies

    [[unroll]] for (uint m = 0; m < 2; ++m)
        [[unroll]] for (uint j = 0; j < 4; ++j) acc[m][j] = vec4(0);

    Head h;
    Raw r;
#ifdef ROUNDED
    uvec4 x[X_LOADS];
#else
    vec4 x[X_LOADS];
#endif
    if (decodes && !has_panel) put_no_weights(quad, g);   // stays
    for (uint b = 0; b <= n_blocks; ++b) {
        // Block b comes in while block b - 1, already here, is put down and multiplied.
        if (b > 0) {
            barrier();
            if (has_panel) put_weights(h, r, quad, g);
            [[unroll]] for (uint i = 0; i < X_LOADS; ++i)
                if (t + i * threads < COLS * X_WORDS) put_x(t + i * threads, x[i]);
            barrier();
        }
        if (b < n_blocks) {
            if (has_panel) {
                h = head(args.w, p, b, rq);
                r = fetch_weights(p, b, rq, g);
            }
            [[unroll]] for (uint i = 0; i < X_LOADS; ++i)
                if (t + i * threads < COLS * X_WORDS) x[i] = fetch_x(t + i * threads, col0, n_cols, b);
        }
        if (b > 0) multiply_tile(q, c);
    }

    [[unroll]] for (uint m = 0; m < 2; ++m)
        [[unroll]] for (uint j = 0; j < 4; ++j) {
            const uint column = c + j * COL_THREADS;
            if (column < n_cols) finish(acc[m][j], row0 + 4 * (q + m * ROW_THREADS), col0 + column);
        }
}
