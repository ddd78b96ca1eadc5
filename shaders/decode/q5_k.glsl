// SPDX-License-Identifier: Apache-2.0
#define HAS_MIN
#define SCALE_AT 4
#define MIN_AT 12
#define CODES_AT 20
#define CODE_WORDS 20
#include "decode/super.glsl"

struct Raw { uvec4 c, bits; uint scale, min; };
Raw fetch(uvec2 w, uint p, uint b, uint rq, uint g) {
    const uint at = codes_at(p, b) + rq;
    return Raw(U4(w).v[at + 4 * g], U4(w).v[at + 16], fetch_scale32(w, p, b, rq), fetch_min32(w, p, b, rq));
}
void codes(Raw r, uint g, out uvec4 lo, out uvec4 hi) {
    nibbles(r.c, lo, hi);
    lo |= bit_lo(r.bits, g) << 4;
    hi |= bit_hi(r.bits, g) << 4;
}
vec4 scale(Head h, Raw r, uint half_) { return halves(h.d) * vec4(bytes_of(r.scale)); }
vec4 minimum(Head h, Raw r, uint half_) { return -(halves(h.dmin) * vec4(bytes_of(r.min))); }
