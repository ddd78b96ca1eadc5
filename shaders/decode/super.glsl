// SPDX-License-Identifier: Apache-2.0
// K types (panel::Super): 256-value units of d | dmin, if any | scales | minima | codes of eight 32-blocks. In 16-byte words:
// SCALE_AT, MIN_AT (types that have a row of minima), CODES_AT, CODE_WORDS of a block.
#include "decode/bits.glsl"
#define HEAD_UNIT 8
const uint kUnit = CODES_AT + 8 * CODE_WORDS;

struct Head { uvec2 d, dmin; };
Head head(uvec2 w, uint p, uint b, uint rq) {
    const uint at = 2 * (p + (b >> 3) * kUnit) + rq;
#ifdef HAS_MIN
    return Head(U2(w).v[at], U2(w).v[at + 4]);
#else
    return Head(U2(w).v[at], uvec2(0));
#endif
}
uint codes_at(uint p, uint b) { return p + (b >> 3) * kUnit + CODES_AT + (b & 7) * CODE_WORDS; }
/// Four rows' bytes of the scales of 32-block b, or of its half.
uint fetch_scale32(uvec2 w, uint p, uint b, uint rq) { return U1(w).v[4 * (p + (b >> 3) * kUnit + SCALE_AT + (b & 7)) + rq]; }
uint fetch_scale16(uvec2 w, uint p, uint b, uint half_, uint rq) {
    return U1(w).v[4 * (p + (b >> 3) * kUnit + SCALE_AT + 2 * (b & 7) + half_) + rq];
}
#ifdef MIN_AT
uint fetch_min32(uvec2 w, uint p, uint b, uint rq) { return U1(w).v[4 * (p + (b >> 3) * kUnit + MIN_AT + (b & 7)) + rq]; }
#endif
