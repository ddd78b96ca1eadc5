// SPDX-License-Identifier: Apache-2.0
#define HAS_MIN
#define HAS_HALF
#define SCALE_AT 4
#define CODES_AT 20
#define CODE_WORDS 8
#include "decode/super.glsl"

struct Raw { uvec4 lo, hi; uint scales[2]; };   // scale | min << 4
Raw fetch(uvec2 w, uint p, uint b, uint rq, uint g) {
    const uint at = codes_at(p, b) + rq;
    return Raw(U4(w).v[at], U4(w).v[at + 4], uint[2](fetch_scale16(w, p, b, 0, rq), fetch_scale16(w, p, b, 1, rq)));
}
void codes(Raw r, uint g, out uvec4 lo, out uvec4 hi) {
    lo = crumb(r.lo, g);
    hi = crumb(r.hi, g);
}
vec4 scale(Head h, Raw r, uint half_) { return halves(h.d) * vec4(bytes_of(r.scales[half_]) & 15u); }
vec4 minimum(Head h, Raw r, uint half_) { return -(halves(h.dmin) * vec4(bytes_of(r.scales[half_]) >> 4)); }
