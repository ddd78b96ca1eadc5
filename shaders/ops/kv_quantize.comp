// SPDX-License-Identifier: Apache-2.0
#version 460
// A group of 32 tokens of one head from two F16 pages of 16 to a page of Q8 or Q4: the arithmetic of
// kernels/cpu/ops/kv_quantize.inl to the bit. Divisions, which a device may round as it likes, are done in integers; there are
// only D + 32 pairs of them.
#extension GL_GOOGLE_include_directive : require
#include "ops/base.glsl"
#include "ops/math.glsl"

layout(constant_id = 1) const uint D = 128;
layout(constant_id = 2) const uint FORMAT = 3;
const uint PAGE = 16;
#include "ops/pages.glsl"

layout(push_constant) uniform Push { KvQuantizePush p; };
shared float s_min[32], s_inv[32];
shared uint s_scale[32];

/// a / b to nearest even, for finite a >= 0 and b > 0, both normal or a = 0, and a normal result.
float divide(float a, float b) {
    if (a == 0.0) return 0.0;
    const uint ua = floatBitsToUint(a), ub = floatBitsToUint(b), mb = (ub & 0x7fffffu) | 0x800000u;
    uint r = (ua & 0x7fffffu) | 0x800000u, e = 127u + (ua >> 23) - (ub >> 23), q = 0u;
    if (r < mb) {
        r *= 2u;
        --e;
    }
    for (uint i = 0u; i < 25u; ++i) {
        q *= 2u;
        if (r >= mb) {
            r -= mb;
            ++q;
        }
        r *= 2u;
    }
    return uintBitsToFloat((e << 23) + (q / 2u - 0x800000u) + (q & 1u));   // a quotient of two floats is never half way
}
/// 1 / the half, negative where that is 0: the reciprocal is infinite then.
float reciprocal(uint half_) { return half_ == 0u ? -1.0 : divide(1.0, from_half(half_)); }

/// x * inv - minus, clamped and rounded.
int code_of(float x, float inv, float minus, float lo, float hi) {
    if (inv < 0.0) return int(x > 0.0 ? hi : lo);   // 0 * infinity is the smallest code
    precise const float scaled = x * inv;
    precise const float y = scaled - minus;
    return int(roundEven(min(max(y, lo), hi)));
}

uint half_at(uvec2 memory, uint byte_) { return (U1(memory).v[byte_ / 4u] >> (8u * (byte_ & 2u))) & 0xffffu; }

/// Scale (8 bits), zero and 1 / scale of a channel of K in Q4.
void affine(float least, float most, out uint scale, out int zero, out float inv) {
    precise const float width = most - least;
    precise const float need = abs(least) * (4.0 / 126.0);
    const float s = max(divide(width, 14.75), need);
    scale = s <= uintBitsToFloat(0x38800000u) ? 8u                                         // 2^-14
          : s < uintBitsToFloat(0x47e00000u) ? (floatBitsToUint(s) - 0x38000000u + 0xfffffu) >> 20   // below 2^16 * 1.75
          : 255u;
    inv = divide(1.0, uintBitsToFloat((scale << 20) + 0x38000000u));
    precise const float four = 4.0 * least;
    zero = code_of(four, inv, 0.5, -127.0, 127.0);
}

/// Codes of two values in a word, of channel k of four.
uvec2 codes_of(uint two, uint k, vec4 inv, vec4 zero) {
    const float lo = FORMAT == kQ4 ? 0.0 : -127.0, hi = FORMAT == kQ4 ? 15.0 : 127.0;
    const float minus = 0.25 * zero[k];
    return uvec2(code_of(from_half(two & 0xffffu), inv[k], minus, lo, hi), code_of(from_half(two >> 16), inv[k], minus, lo, hi)) & 255u;
}

/// Channels d .. d + 3 of K; from: word of this head in the two source pages; to: in the other.
void quantize_k(uvec2 memory, uvec2 from, uint to, uint d) {
    uvec4 scales = uvec4(0u), zeros = uvec4(0u);
    vec4 inv = vec4(0.0), zero = vec4(0.0);
    for (uint k = 0u; k < 4u && d < D; ++k) {
        const uvec2 row = from + (d + k) * 8u;
        float least = from_half(U1(memory).v[row.x] & 0xffffu), most = least;
        for (uint w = 0u; w < 16u; ++w) {
            const uint two = U1(memory).v[(w < 8u ? row.x : row.y) + w % 8u];
            const float a = from_half(two & 0xffffu), b = from_half(two >> 16);
            least = min(least, min(a, b));
            most = max(most, max(a, b));
        }
        if (FORMAT == kQ4) {
            uint scale;
            int z;
            float i;
            affine(least, most, scale, z, i);
            scales[k] = scale;
            zeros[k] = uint(z) & 255u;
            zero[k] = float(z);
            inv[k] = i;
        } else {
            scales[k] = to_half(divide(max(abs(least), abs(most)), 127.0));
            inv[k] = reciprocal(scales[k]);
        }
    }
    for (uint w = 0u; w < 8u && d < D; ++w) {
        uvec2 lanes = uvec2(0u);   // Q4: 2 w and 2 w + 1
        for (uint k = 0u; k < 4u; ++k) {
            const uvec2 row = from + (d + k) * 8u;
            if (FORMAT == kQ4) {
                lanes |= codes_of(U1(memory).v[row.x + w], k, inv, zero) << (8u * k) |
                         codes_of(U1(memory).v[row.y + w], k, inv, zero) << (8u * k + 4u);
            } else {
                const uint at = (w < 4u ? row.x : row.y) + w % 4u * 2u;
                const uvec2 a = codes_of(U1(memory).v[at], k, inv, zero), b = codes_of(U1(memory).v[at + 1u], k, inv, zero);
                U1(p.pages).v[to + (d + k) * 8u + w] = a.x | a.y << 8 | b.x << 16 | b.y << 24;
            }
        }
        if (FORMAT == kQ4) {
            U1(p.pages).v[to + d * 4u + 2u * w] = lanes.x;
            U1(p.pages).v[to + d * 4u + 2u * w + 1u] = lanes.y;
        }
    }
    if (FORMAT == kQ4) {
        U1(p.pages).v[to + (K_SCALE + d) / 4u] = scales.x | scales.y << 8 | scales.z << 16 | scales.w << 24;
        U1(p.pages).v[to + (K_ZERO + d) / 4u] = zeros.x | zeros.y << 8 | zeros.z << 16 | zeros.w << 24;
    } else {
        U1(p.pages).v[to + (K_SCALE + 2u * d) / 4u] = scales.x | scales.y << 16;
        U1(p.pages).v[to + (K_SCALE + 2u * d) / 4u + 1u] = scales.z | scales.w << 16;
    }
}

/// Byte of channel 0 of token t of V in the source pages.
uint v_row(uvec2 from, uint t) { return (t < 16u ? from.x : from.y) * 4u + V_EXACT + t % 16u * (PITCH * 2u); }

/// s_scale, s_inv and s_min of token t.
void measure_v(uvec2 memory, uvec2 from, uint t) {
    const uint row = v_row(from, t);
    float least = from_half(half_at(memory, row)), most = least;
    for (uint d = 1u; d < D; ++d) {
        const float x = from_half(half_at(memory, row + 2u * d));
        least = min(least, x);
        most = max(most, x);
    }
    precise const float width = most - least;
    s_scale[t] = to_half(FORMAT == kQ4 ? divide(width, 15.0) : divide(max(abs(most), abs(least)), 127.0));
    s_inv[t] = reciprocal(s_scale[t]);
    s_min[t] = least;
}

/// Word i of V's codes: Q8: four channels of a token; Q4: a channel of 8 tokens.
uint v_word(uvec2 memory, uvec2 from, uint i) {
    uint word = 0u;
    if (FORMAT == kQ4) {
        const uint channel = i / 64u * 16u + i % 16u;
        for (uint e = 0u; e < 8u; ++e) {
            const uint t = i / 16u % 4u * 8u + e;
            precise const float x = from_half(half_at(memory, v_row(from, t) + 2u * channel)) - s_min[t];
            word |= uint(code_of(x, s_inv[t], 0.0, 0.0, 15.0)) << (4u * e);
        }
    } else {
        const uint t = i / 4u % 32u;
        for (uint e = 0u; e < 4u; ++e) {
            const float x = from_half(half_at(memory, v_row(from, t) + 2u * (i / 128u * 16u + i % 4u * 4u + e)));
            word |= (uint(code_of(x, s_inv[t], 0.0, -127.0, 127.0)) & 255u) << (8u * e);
        }
    }
    return word;
}

void main() {
    const uint tid = gl_LocalInvocationID.x, head = gl_WorkGroupID.y;
    const uvec4 job = listed(p.run, p.list, gl_WorkGroupID.x);   // KvGroup
    const uvec2 memory = memory_of(job.x, p.pages, p.exact, p.staging);
    const uvec2 from = (job.yz * p.n_head_kv + head) * (HEAD_EXACT / 4u);
    const uint to = (job.w * p.n_head_kv + head) * (HEAD / 4u);
    for (uint d = 4u * tid; d < PITCH; d += 4u * WG) quantize_k(memory, from, to, d);
    if (tid < 32u) measure_v(memory, from, tid);
    barrier();
    for (uint i = tid; i < PITCH * (FORMAT == kQ4 ? 4u : 8u); i += WG) U1(p.pages).v[to + V_CODES / 4u + i] = v_word(memory, from, i);
    if (tid < 16u) {
        U1(p.pages).v[to + V_SCALE / 4u + tid] = s_scale[2u * tid] | s_scale[2u * tid + 1u] << 16;
        if (FORMAT == kQ4) U1(p.pages).v[to + V_MIN / 4u + tid] = to_half(s_min[2u * tid]) | to_half(s_min[2u * tid + 1u]) << 16;
    }
}
