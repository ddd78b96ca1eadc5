// SPDX-License-Identifier: Apache-2.0
#define CODE_WORDS 16
#include "decode/pair.glsl"

struct Raw { uvec4 c; uvec2 d; };
Raw fetch(uvec2 w, uint p, uint b, uint rq, uint g) {
    const uint at = codes_at(p, b) + rq;
    return Raw(U4(w).v[at + 4 * g], fetch_d(w, p, b, rq));
}
void codes(Raw r, uint g, out uvec4 lo, out uvec4 hi) {
    nibbles(r.c, lo, hi);
    lo = less(lo, 8);
    hi = less(hi, 8);
}
vec4 scale(Head h, Raw r, uint half_) { return halves(r.d); }
