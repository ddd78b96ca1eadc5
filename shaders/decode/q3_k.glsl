// SPDX-License-Identifier: Apache-2.0
#define HAS_HALF
#define SCALE_AT 2
#define CODES_AT 18
#define CODE_WORDS 12
#include "decode/super.glsl"

struct Raw { uvec4 lo, hi, bits; uint scales[2]; };
Raw fetch(uvec2 w, uint p, uint b, uint rq, uint g) {
    const uint at = codes_at(p, b) + rq;
    return Raw(U4(w).v[at], U4(w).v[at + 4], U4(w).v[at + 8],
               uint[2](fetch_scale16(w, p, b, 0, rq), fetch_scale16(w, p, b, 1, rq)));
}
void codes(Raw r, uint g, out uvec4 lo, out uvec4 hi) {
    lo = less(crumb(r.lo, g) | (bit_lo(r.bits, g) << 2), 4);
    hi = less(crumb(r.hi, g) | (bit_hi(r.bits, g) << 2), 4);
}
vec4 scale(Head h, Raw r, uint half_) { return halves(h.d) * vec4(signed_bytes_of(r.scales[half_])); }
