// SPDX-License-Identifier: Apache-2.0
// What the decoders share. Sixteen threads serve a 32-block of a panel of 16 rows (kernels/cpu/panel.h): thread (rq, g) has
// rows 4 rq .. 4 rq + 3, one a component, and values 4 g .. 4 g + 3 ("lo") and 16 + 4 g .. ("hi"), one a byte. Its codes are
// one uvec4 of each plane, next to its neighbours'. A decoder says of its type
//   HAS_MIN    there is a minimum      HAS_HALF    scales (and minima) of lo and hi differ
//   HEAD_UNIT  a Head serves blocks of the same multiple of this many
// and gives for panel p (in words of 16 bytes) and block b
//   head()  what several blocks share       fetch()    a block's bytes, no arithmetic: loads can run ahead
//   codes() signed bytes: value = code * scale() (+ minimum())
// F32, F16 and BF16 (FLOAT_WEIGHTS) give values() instead of the last three.
#ifndef QUERN_BITS_GLSL
#define QUERN_BITS_GLSL
#include "lib/refs.glsl"

void nibbles(uvec4 raw, out uvec4 lo, out uvec4 hi) {
    lo = raw & 0x0f0f0f0fu;
    hi = (raw >> 4) & 0x0f0f0f0fu;
}
/// The plane's bit of each value, in bit 0 of its byte.
uvec4 bit_lo(uvec4 plane, uint g) { return (plane >> g) & 0x01010101u; }
uvec4 bit_hi(uvec4 plane, uint g) { return (plane >> (g + 4)) & 0x01010101u; }
uvec4 crumb(uvec4 plane, uint g) { return (plane >> (2 * g)) & 0x03030303u; }
/// Bytes below 128 less `offset`, as signed bytes. No byte borrows from its neighbour: bit 7 is up meanwhile.
uvec4 less(uvec4 c, uint offset) { return ((c | 0x80808080u) - offset * 0x01010101u) ^ 0x80808080u; }

/// Signed byte i of each component.
vec4 signed_bytes(uvec4 c, uint i) { return vec4(bitfieldExtract(ivec4(c), int(8 * i), 8)); }
/// Four bytes of a word, one a component.
uvec4 bytes_of(uint w) { return (uvec4(w) >> uvec4(0, 8, 16, 24)) & 255u; }
ivec4 signed_bytes_of(uint w) { return ivec4(uvec4(w) << uvec4(24, 16, 8, 0)) >> 24; }
vec4 halves(uvec2 h) { return vec4(unpackHalf2x16(h.x), unpackHalf2x16(h.y)); }

#endif
