// SPDX-License-Identifier: Apache-2.0
// K and V of a page as floats, whatever its format, by units of 8 tokens. `head` is the head's first byte in the page / 16.
// Codes become floats by way of the mantissa of 2^23: an addition, where conversions are slower.
const uint kMagic = 0x4b000000u;
float nibble(uint word, uint shift) { return uintBitsToFloat(((word >> shift) & 15u) | kMagic) - 8388608.0; }
float code8(uint word, uint shift) { return uintBitsToFloat((((word ^ 0x80808080u) >> shift) & 255u) | kMagic) - 8388736.0; }

void halves(uvec4 w, out float x[8]) {
    const vec2 a = unpackHalf2x16(w.x), b = unpackHalf2x16(w.y), c = unpackHalf2x16(w.z), d = unpackHalf2x16(w.w);
    x = float[8](a.x, a.y, b.x, b.y, c.x, c.y, d.x, d.y);
}
void codes(uvec2 w, out float x[8]) {
    [[unroll]] for (uint e = 0u; e < 8u; ++e) x[e] = code8(w[e / 4u], 8u * (e % 4u));
}
void nibbles(uvec4 w, uint shift, out float x[8]) {   // lanes' nibbles at shift, then those at shift + 4
    [[unroll]] for (uint e = 0u; e < 8u; ++e) x[e] = nibble(w[e % 4u], shift + 4u * (e / 4u));
}

/// Tokens of unit u, from the first of its 32: 8 in a row, or in Q4 lanes 4 u .. 4 u + 3 of both halves.
uint unit_token(uint u, uint e) {
    const uint first = u / 4u * 32u;
    return FORMAT == kQ4 ? first + u % 4u * 4u + (e < 4u ? e : 12u + e) : u * 8u + e;
}

/// What a thread loads at a time: four channels of the unit's 8 tokens. Exact pages: channels step apart, so that neighbours
/// (slices) are neighbours in memory too.
struct KRaw { uvec4 a[4], b[4]; uvec2 scale; uint zero; };
uint k_channel(uint i, uint k, uint slice, uint slices) { return QUANT ? (i * slices + slice) * 4u + k : (i * 4u + k) * slices + slice; }

/// tile: of 16 tokens in the page, and half of it (0, 1), in exact pages; unit % 4 in quantized ones.
void k_load(uvec2 memory, uint head, uint tile, uint part, uint i, uint slice, uint slices, out KRaw raw) {
    if (FORMAT == kQ4) {
        const uint d = k_channel(i, 0u, slice, slices);
        if (d >= D) return;
        raw.a[0] = U4(memory).v[head + d + part];
        raw.scale.x = U1(memory).v[head * 4u + (K_SCALE + d) / 4u];
        raw.zero = U1(memory).v[head * 4u + (K_ZERO + d) / 4u];
        return;
    }
    if (FORMAT == kQ8) {
        const uint d = k_channel(i, 0u, slice, slices);
        if (d >= D) return;
        [[unroll]] for (uint k = 0u; k < 4u; ++k) raw.a[k].xy = U2(memory).v[head * 2u + (d + k) * 4u + part];
        raw.scale = U2(memory).v[head * 2u + (K_SCALE + 2u * d) / 8u];
        return;
    }
    [[unroll]] for (uint k = 0u; k < 4u; ++k) {
        const uint d = k_channel(i, k, slice, slices);
        if (D % (4u * slices) != 0u && d >= D) continue;
        const uint at = head + (tile * D + d) * (FORMAT == kF32 ? 4u : 2u) + part * (FORMAT == kF32 ? 2u : 1u);
        raw.a[k] = U4(memory).v[at];
        if (FORMAT == kF32) raw.b[k] = U4(memory).v[at + 1u];
    }
}

/// Channel k of four: 8 values, to be multiplied by `scale`, then + zero * scale / 4.
void k_values(KRaw raw, uint k, out float x[8], out float scale, out float zero) {
    scale = 1.0;
    zero = 0.0;
    if (FORMAT == kQ4) {
        nibbles(raw.a[0], 8u * k, x);
        scale = uintBitsToFloat(((raw.scale.x >> (8u * k)) & 255u) << 20) * uintBitsToFloat(0x77800000u);   // 2^112
        zero = code8(raw.zero, 8u * k);
    } else if (FORMAT == kQ8) {
        codes(raw.a[k].xy, x);
        scale = from_half((raw.scale[k / 2u] >> (16u * (k % 2u))) & 0xffffu);
    } else if (FORMAT == kF16) {
        halves(raw.a[k], x);
    } else {
        const vec4 a = uintBitsToFloat(raw.a[k]), b = uintBitsToFloat(raw.b[k]);
        x = float[8](a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w);
    }
}

/// 8 channels (8 c ...) of 8 tokens of V (slot, a multiple of 8, ...), without scales. Of slots outside [lo, hi) another's.
struct VRaw { uvec4 a[8], b[8]; };
void v_load(uvec2 memory, uint head, uint slot, uint lo, uint hi, uint c, out VRaw raw) {
    if (FORMAT == kQ4) {
        const uint at = head + V_CODES / 16u + (c / 2u * 4u + slot % 32u / 8u) * 4u + c % 2u * 2u;
        raw.a[0] = U4(memory).v[at];
        raw.b[0] = U4(memory).v[at + 1u];
        return;
    }
    [[unroll]] for (uint e = 0u; e < 8u; ++e) {
        const uint s = clamp(slot + e, lo, hi - 1u);
        if (FORMAT == kQ8) {
            raw.a[e].xy = U2(memory).v[head * 2u + V_CODES / 8u + (c / 2u * 32u + s % 32u) * 2u + c % 2u];
        } else {
            const uint at = head + V_EXACT / 16u + s * (PITCH * (FORMAT == kF32 ? 4u : 2u) / 16u) + c * (FORMAT == kF32 ? 2u : 1u);
            raw.a[e] = U4(memory).v[at];
            if (FORMAT == kF32) raw.b[e] = U4(memory).v[at + 1u];
        }
    }
}
void v_values(VRaw raw, uint e, out float x[8]) {
    if (FORMAT == kQ4) {
        [[unroll]] for (uint d = 0u; d < 8u; ++d) x[d] = nibble(d < 4u ? raw.a[0][d] : raw.b[0][d - 4u], 4u * e);
    } else if (FORMAT == kQ8) {
        codes(raw.a[e].xy, x);
    } else if (FORMAT == kF16) {
        halves(raw.a[e], x);
    } else {
        const vec4 a = uintBitsToFloat(raw.a[e]), b = uintBitsToFloat(raw.b[e]);
        x = float[8](a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w);
    }
}
/// Scale and minimum of a token of V in a quantized page.
vec2 v_scale(uvec2 memory, uint head, uint t) {
    const uint shift = 16u * (t % 2u);
    const uint s = U1(memory).v[head * 4u + V_SCALE / 4u + t / 2u] >> shift;
    const uint m = FORMAT == kQ4 ? U1(memory).v[head * 4u + V_MIN / 4u + t / 2u] >> shift : 0u;
    return vec2(from_half(s & 0xffffu), from_half(m & 0xffffu));
}
