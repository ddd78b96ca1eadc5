// SPDX-License-Identifier: Apache-2.0
#define HAS_HALF
#define SCALE_AT 2
#define CODES_AT 20
#define CODE_WORDS 24
#include "decode/super.glsl"

struct Raw { uvec4 c, lo, hi; uint scales[2]; };
Raw fetch(uvec2 w, uint p, uint b, uint rq, uint g) {
    const uint at = codes_at(p, b) + rq;
    return Raw(U4(w).v[at + 4 * g], U4(w).v[at + 16], U4(w).v[at + 20],
               uint[2](fetch_scale16(w, p, b, 0, rq), fetch_scale16(w, p, b, 1, rq)));
}
void codes(Raw r, uint g, out uvec4 lo, out uvec4 hi) {
    nibbles(r.c, lo, hi);
    lo = less(lo | (crumb(r.lo, g) << 4), 32);
    hi = less(hi | (crumb(r.hi, g) << 4), 32);
}
vec4 scale(Head h, Raw r, uint half_) { return halves(h.d) * vec4(signed_bytes_of(r.scales[half_])); }
