// SPDX-License-Identifier: Apache-2.0
#define CODE_WORDS 32
#include "decode/pair.glsl"

struct Raw { uvec4 lo, hi; uvec2 d; };
Raw fetch(uvec2 w, uint p, uint b, uint rq, uint g) {
    const uint at = codes_at(p, b) + 4 * g + rq;
    return Raw(U4(w).v[at], U4(w).v[at + 16], fetch_d(w, p, b, rq));
}
void codes(Raw r, uint g, out uvec4 lo, out uvec4 hi) {
    lo = r.lo;
    hi = r.hi;
}
vec4 scale(Head h, Raw r, uint half_) { return halves(r.d); }
