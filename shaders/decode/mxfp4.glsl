// SPDX-License-Identifier: Apache-2.0
// Scale bytes of four 32-blocks | their codes (panel::MXFP4).
#include "decode/bits.glsl"
#define HEAD_UNIT 64

struct Head { uint none; };
Head head(uvec2 w, uint p, uint b, uint rq) { return Head(0); }

struct Raw { uvec4 c; uint e; };
Raw fetch(uvec2 w, uint p, uint b, uint rq, uint g) {
    const uint unit = p + (b >> 2) * 68;
    return Raw(U4(w).v[unit + 4 + (b & 3) * 16 + 4 * g + rq], U1(w).v[4 * (unit + (b & 3)) + rq]);
}
/// Twice the values 0 0.5 1 1.5 2 3 4 6, negative where bit 3 is set. m = 0 to 7: 4 to 7 get t = m mod 4 more, 7 another 2.
uvec4 doubled(uvec4 c) {
    const uvec4 m = c & 0x07070707u, t = m & 0x03030303u, large = ((m >> 2) & 0x01010101u) * 255;
    const uvec4 size = m + (large & (t + 2 * (t & (t >> 1) & 0x01010101u))), negative = ((c >> 3) & 0x01010101u) * 255;
    return (0x80808080u + (size & ~negative) - (size & negative)) ^ 0x80808080u;
}
void codes(Raw r, uint g, out uvec4 lo, out uvec4 hi) {
    nibbles(r.c, lo, hi);
    lo = doubled(lo);
    hi = doubled(hi);
}
/// 2^(e - 128) as the product of two powers, since no shift gives those that are subnormal.
vec4 scale(Head h, Raw r, uint half_) {
    const uvec4 e = bytes_of(r.e), down = e >> 1;
    return uintBitsToFloat((down + 63) << 23) * uintBitsToFloat((e - down + 63) << 23);
}
