// SPDX-License-Identifier: Apache-2.0
// Activations to int8 in blocks of 32, as kernels/cpu/ops/quantize_act.inl does; a thread takes a block. Division may round
// otherwise than a CPU's: a code at a tie can differ by one, a scale in its last bits.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "args_matmul.h"
#include "lib/refs.glsl"

layout(local_size_x = 64, local_size_y = 1, local_size_z = 1) in;
layout(push_constant, std430) uniform Push { QuantizePush args; };

/// A column's ActLayout(n) at word `at` (of 16 bytes); x becomes what rounding lost.
void quantize_block(inout vec4 x[8], uint at, uint b) {
    U1Out q = U1Out(args.q);
    const uint n = args.n, floats = 4 * at + n / 4;
    vec4 top = vec4(0);
    [[unroll]] for (uint i = 0; i < 8; ++i) top = mix(top, abs(x[i]), greaterThan(abs(x[i]), top));   // not NaN
    const float amax = max(max(top.x, top.y), max(top.z, top.w));
    const float id = amax >= 7.888609052210118e-31 ? 127.0 / amax : 0.0, d = amax / 127.0;   // 2^-100
    ivec2 sums = ivec2(0);
    [[unroll]] for (uint i = 0; i < 8; ++i) {
        const vec4 scaled = x[i] * id;
        const vec4 code = mix(vec4(-127), roundEven(min(scaled, vec4(127))), greaterThan(scaled, vec4(-127)));
        const ivec4 c = ivec4(code);
        sums[i / 4] += (c.x + c.y) + (c.z + c.w);
        const uvec4 byte_ = uvec4(c) & 255u;
        q.v[4 * at + 8 * b + i] = byte_.x | (byte_.y << 8) | (byte_.z << 16) | (byte_.w << 24);
        x[i] = fma(vec4(-d), code, x[i]);
    }
    const int both = sums.x + sums.y;
    q.v[floats + b] = floatBitsToUint(d);
    q.v[floats + n / 32 + b] = uint(both);
    q.v[floats + n / 16 + b] = floatBitsToUint(d * float(both));
    q.v[floats + 3 * (n / 32) + 2 * b] = uint(sums.x);
    q.v[floats + 3 * (n / 32) + 2 * b + 1] = uint(sums.y);
}

void main() {
    const uint b = gl_GlobalInvocationID.x, c = gl_WorkGroupID.y;
    uint n_cols = args.n_cols;
    if (args.cols_from != QUERN_COLS_PUSHED) n_cols = U1(args.run).v[args.cols_from == QUERN_COLS_TOKENS ? 0 : 1];
    if (32 * b >= args.n || c >= n_cols) return;
    vec4 x[8];
    [[unroll]] for (uint i = 0; i < 8; ++i) x[i] = F4(args.x).v[c * args.x_stride + 8 * b + i];
    quantize_block(x, c * args.q_stride, b);
    // ActLayout::bytes in words: n codes and n / 32 * (4 + 4 + 4 + 8) bytes, rounded up to 64.
    if (args.fine != 0) quantize_block(x, c * args.q_stride + (args.n + args.n / 32 * 20 + 63) / 64 * 4, b);
}
