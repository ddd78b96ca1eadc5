// SPDX-License-Identifier: Apache-2.0
#define CODE_WORDS 20
#include "decode/pair.glsl"

struct Raw { uvec4 c, bits; uvec2 d; };
Raw fetch(uvec2 w, uint p, uint b, uint rq, uint g) {
    const uint at = codes_at(p, b) + rq;
    return Raw(U4(w).v[at + 4 * g], U4(w).v[at + 16], fetch_d(w, p, b, rq));
}
void codes(Raw r, uint g, out uvec4 lo, out uvec4 hi) {
    nibbles(r.c, lo, hi);
    lo |= bit_lo(r.bits, g) << 4;
    hi |= bit_hi(r.bits, g) << 4;
    lo = less(lo, 16);
    hi = less(hi, 16);
}
vec4 scale(Head h, Raw r, uint half_) { return halves(r.d); }
