// SPDX-License-Identifier: Apache-2.0
// Matrix times many columns on matrix units: both sides rounded to F16, sums in F32. A workgroup of SUB_ROWS x SUB_COLS
// subgroups makes 64 * SUB_ROWS rows of 32 * SUB_COLS columns, a subgroup 64 x 32 as 4 x 2 matrices. As in matmul.comp, a
// 32-block lies decoded in shared memory while the next one comes in. Results leave through shared memory, where rows and
// columns can be told apart, which a matrix in registers hides.
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#include "lib/matmul.glsl"

layout(local_size_x_id = 0, local_size_y = 1, local_size_z = 1) in;   // SUBGROUP * SUB_ROWS * SUB_COLS
layout(constant_id = 1) const uint SUBGROUP = 32;   // the pipeline's; SUBGROUP * SUB_COLS >= 64
layout(constant_id = 2) const uint SUB_ROWS = 2;
layout(constant_id = 3) const uint SUB_COLS = 4;
const uint ROWS = 64 * SUB_ROWS;
const uint COLS = 32 * SUB_COLS;
const uint THREADS = SUBGROUP * SUB_ROWS * SUB_COLS;
const uint X_LOADS = COLS * 8 / THREADS;   // four values each
const uint PITCH = 10;                     // 32 values and 8 more, by four: rows lie in other banks

shared f16vec4 tile_w[ROWS * PITCH];   // [row][k]
shared f16vec4 tile_x[COLS * PITCH];   // [column][k]
shared float stage[SUB_ROWS * SUB_COLS * 256];   // of a subgroup [column][row]

#define MatrixW coopmat<float16_t, gl_ScopeSubgroup, 16, 16, gl_MatrixUseA>
#define MatrixX coopmat<float16_t, gl_ScopeSubgroup, 16, 16, gl_MatrixUseB>
#define MatrixY coopmat<float, gl_ScopeSubgroup, 16, 16, gl_MatrixUseAccumulator>

/// The largest F16 for what is beyond it: a wrong value, but no infinity, which would make NaN of the whole row.
f16vec4 rounded(vec4 v) { return f16vec4(clamp(v, vec4(-65504), vec4(65504))); }

Raw fetch_weights(uint p, uint b, uint rq, uint g) {
#ifdef FLOAT_WEIGHTS
    return fetch_below(args.w, p, b, rq, g, args.n_k);
#else
    return fetch(args.w, p, b, rq, g);
#endif
}
vec4 fetch_x(uint i, uint col0, uint n_cols, uint b) {
    const uint c = i / 8, k = 32 * b + 4 * (i % 8);
    if (c >= n_cols) return vec4(0);
#ifdef FLOAT_WEIGHTS
    return activations_below(col0 + c, k);
#else
    return activations(col0 + c, k);
#endif
}
void put_weights(vec4 w[8], uint row, uint g) {
    [[unroll]] for (uint i = 0; i < 4; ++i) {
        tile_w[(row + i) * PITCH + g] = rounded(vec4(w[0][i], w[1][i], w[2][i], w[3][i]));
        tile_w[(row + i) * PITCH + 4 + g] = rounded(vec4(w[4][i], w[5][i], w[6][i], w[7][i]));
    }
}

void main() {
    const uint t = gl_LocalInvocationIndex;
    const uint row0 = gl_WorkGroupID.x * ROWS, col0 = gl_WorkGroupID.y * COLS, all = n_columns();
    if (col0 >= all) return;   // all threads of a group alike
    const uint n_cols = min(all - col0, COLS), n_blocks = (args.n_k + 31) / 32;
    // What this thread decodes: rows row .. row + 3 of the tile, if there are so many.
    const uint rq = t & 3, g = (t >> 2) & 3, row = (t >> 4) * 16 + 4 * rq;
    const uint panel = row0 / 16 + (t >> 4), p = panel * args.panel_stride;
    const bool decodes = row < ROWS, has_panel = decodes && 16 * panel < args.n_rows;
    const uint sub_row = gl_SubgroupID % SUB_ROWS * 64, sub_col = gl_SubgroupID / SUB_ROWS * 32;

    MatrixY acc[8];
    [[unroll]] for (uint i = 0; i < 8; ++i) acc[i] = MatrixY(0.0);

    Head h;
    Raw r;
    vec4 x[X_LOADS], w[8];
    [[unroll]] for (uint i = 0; i < 8; ++i) w[i] = vec4(0);
    if (decodes && !has_panel) put_weights(w, row, g);   // stays
    for (uint b = 0; b <= n_blocks; ++b) {
        if (b > 0) {
            barrier();
            if (has_panel) {
                weights(h, r, g, w);
                put_weights(w, row, g);
            }
            [[unroll]] for (uint i = 0; i < X_LOADS; ++i) {
                const uint at = t + i * THREADS;
                tile_x[at / 8 * PITCH + at % 8] = rounded(x[i]);
            }
            barrier();
        }
        if (b < n_blocks) {
            if (has_panel) {
                h = head(args.w, p, b, rq);
                r = fetch_weights(p, b, rq, g);
            }
            [[unroll]] for (uint i = 0; i < X_LOADS; ++i) x[i] = fetch_x(t + i * THREADS, col0, n_cols, b);
        }
        if (b > 0) {
            [[unroll]] for (uint k4 = 0; k4 < 8; k4 += 4) {   // 16 values
                MatrixX mx[2];
                [[unroll]] for (uint j = 0; j < 2; ++j)
                    coopMatLoad(mx[j], tile_x, (sub_col + 16 * j) * PITCH + k4, PITCH,
                                gl_CooperativeMatrixLayoutColumnMajor);
                [[unroll]] for (uint i = 0; i < 4; ++i) {
                    MatrixW mw;
                    coopMatLoad(mw, tile_w, (sub_row + 16 * i) * PITCH + k4, PITCH, gl_CooperativeMatrixLayoutRowMajor);
                    [[unroll]] for (uint j = 0; j < 2; ++j) acc[2 * i + j] = coopMatMulAdd(mw, mx[j], acc[2 * i + j]);
                }
            }
        }
    }

    const uint mine = gl_SubgroupID * 256;
    [[unroll]] for (uint i = 0; i < 4; ++i)
        [[unroll]] for (uint j = 0; j < 2; ++j) {
            barrier();   // of the workgroup: all subgroups take these steps together
            coopMatStore(acc[2 * i + j], stage, mine, 16, gl_CooperativeMatrixLayoutColumnMajor);
            barrier();
            for (uint o = gl_SubgroupInvocationID; o < 64; o += SUBGROUP) {
                const uint column = sub_col + 16 * j + o / 4, quad = o % 4, at = mine + o / 4 * 16 + 4 * quad;
                const vec4 sum = vec4(stage[at], stage[at + 1], stage[at + 2], stage[at + 3]);
                if (column < n_cols) finish(sum, row0 + sub_row + 16 * i + 4 * quad, col0 + column);
            }
        }
}
