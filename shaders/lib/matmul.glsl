// SPDX-License-Identifier: Apache-2.0
// What the matrix kernels share: their arguments, activations, the end of a result.
#include "args_matmul.h"
#include "decode/type.glsl"

layout(push_constant, std430) uniform Push { MatmulPush args; };

uint n_columns() {
    if (args.cols_from == QUERN_COLS_PUSHED) return args.n_cols;
    return U1(args.run).v[args.cols_from == QUERN_COLS_TOKENS ? 0 : 1];
}
bool is_null(uvec2 address) { return (address.x | address.y) == 0; }

#ifdef ROUNDED
#extension GL_EXT_spirv_intrinsics : require
/// Sum of the products of four signed bytes (OpSDotKHR; the literal 0 says that they are packed in a word).
spirv_instruction(extensions = ["SPV_KHR_integer_dot_product"], capabilities = [6019, 6018], id = 4450)
int packed_dot(uint a, uint b, spirv_literal int packed_4x8);
int dot4(uint a, uint b) { return packed_dot(a, b, 0); }
ivec4 dot4(uvec4 rows, uint x) { return ivec4(dot4(rows.x, x), dot4(rows.y, x), dot4(rows.z, x), dot4(rows.w, x)); }

// ActLayout(n_k) of column c, in floats or words of 4 bytes: codes, scales, sums of 32 and of 16.
uint act_codes(uint c, uint b) { return 4 * c * args.x_stride + 8 * b; }
uint act_scale(uint c, uint b) { return 4 * c * args.x_stride + args.n_k / 4 + b; }
uint act_sum16(uint c, uint b) { return 4 * c * args.x_stride + args.n_k / 4 + 3 * (args.n_k / 32) + 2 * b; }
#else
/// Four activations of column c from k (a multiple of 4) on.
vec4 activations(uint c, uint k) { return F4(args.x).v[c * args.x_stride + k / 4]; }
/// The same where a row may end in between: zeros from there on.
vec4 activations_below(uint c, uint k) {
    vec4 x = vec4(0);
    if (k < args.n_k) x = activations(c, k);
    return mix(x, vec4(0), greaterThanEqual(uvec4(k) + uvec4(0, 1, 2, 3), uvec4(args.n_k)));
}
#endif

/// Rows row ... row + 3 of column c, as far as there are such rows.
void finish(vec4 sum, uint row, uint c) {
    F1InOut y = F1InOut(args.y);
    [[unroll]] for (uint i = 0; i < 4; ++i) {
        if (row + i < args.n_rows) {
            const uint at = c * args.y_stride + row + i;
            float v = sum[i];
            if (!is_null(args.bias)) v += F1(args.bias).v[row + i];
            if (args.add != 0) v += y.v[at];
            y.v[at] = v;
        }
    }
}
