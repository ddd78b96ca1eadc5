// SPDX-License-Identifier: Apache-2.0
// Types with 32-value blocks of which two share a unit (panel::Pair). CODE_WORDS: 16-byte words of a block's codes.
#include "decode/bits.glsl"
#ifdef HAS_MIN
const uint kHead = 8;
#else
const uint kHead = 4;
#endif
const uint kUnit = kHead + 2 * CODE_WORDS;
#define HEAD_UNIT 64

struct Head { uint none; };
Head head(uvec2 w, uint p, uint b, uint rq) { return Head(0); }
uint codes_at(uint p, uint b) { return p + (b >> 1) * kUnit + kHead + (b & 1) * CODE_WORDS; }
uvec2 fetch_d(uvec2 w, uint p, uint b, uint rq) { return U2(w).v[2 * (p + (b >> 1) * kUnit + (b & 1) * 2) + rq]; }
uvec2 fetch_m(uvec2 w, uint p, uint b, uint rq) { return U2(w).v[2 * (p + (b >> 1) * kUnit + (b & 1) * 2 + 4) + rq]; }
