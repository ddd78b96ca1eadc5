// SPDX-License-Identifier: Apache-2.0
// The decoder of the type that the module is made for (TYPE_... of shaders/variants.list).
#if defined(TYPE_F32)
#include "decode/f32.glsl"
#elif defined(TYPE_F16)
#include "decode/f16.glsl"
#elif defined(TYPE_BF16)
#include "decode/bf16.glsl"
#elif defined(TYPE_Q4_0)
#include "decode/q4_0.glsl"
#elif defined(TYPE_Q4_1)
#include "decode/q4_1.glsl"
#elif defined(TYPE_Q5_0)
#include "decode/q5_0.glsl"
#elif defined(TYPE_Q5_1)
#include "decode/q5_1.glsl"
#elif defined(TYPE_Q8_0)
#include "decode/q8_0.glsl"
#elif defined(TYPE_Q2_K)
#include "decode/q2_k.glsl"
#elif defined(TYPE_Q3_K)
#include "decode/q3_k.glsl"
#elif defined(TYPE_Q4_K)
#include "decode/q4_k.glsl"
#elif defined(TYPE_Q5_K)
#include "decode/q5_k.glsl"
#elif defined(TYPE_Q6_K)
#include "decode/q6_k.glsl"
#elif defined(TYPE_MXFP4)
#include "decode/mxfp4.glsl"
#endif

/// Values as floats, component = row: w[i] is value 4 g + i, w[4 + i] value 16 + 4 g + i.
void weights(Head h, Raw r, uint g, out vec4 w[8]) {
#ifdef FLOAT_WEIGHTS
    [[unroll]] for (uint i = 0; i < 8; ++i) w[i] = value(r.v[i]);
#else
    uvec4 c[2];
    codes(r, g, c[0], c[1]);
    [[unroll]] for (uint half_ = 0; half_ < 2; ++half_) {
        const vec4 s = scale(h, r, half_);
        [[unroll]] for (uint i = 0; i < 4; ++i) {
            w[4 * half_ + i] = signed_bytes(c[half_], i) * s;
#ifdef HAS_MIN
            w[4 * half_ + i] += minimum(h, r, half_);
#endif
        }
    }
#endif
}
