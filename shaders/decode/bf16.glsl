// SPDX-License-Identifier: Apache-2.0
#define FLOAT_WEIGHTS
#include "decode/bits.glsl"

#define Bits uvec2   // of four rows
Bits fetch_k(uvec2 w, uint p, uint k, uint rq) { return U2(w).v[2 * p + 4 * k + rq]; }
vec4 value(Bits v) { return uintBitsToFloat(uvec4(v.x << 16, v.x & 0xffff0000u, v.y << 16, v.y & 0xffff0000u)); }
#include "decode/floats.glsl"
