// SPDX-License-Identifier: Apache-2.0
#version 460
// A group is one token and one head of Q, or of K and V. Halves of two tokens share a word of K: the group of the token at the
// even position writes both where the next one is in the batch, else it keeps the other's half; so no word has two writers.
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#include "ops/base.glsl"
#include "ops/math.glsl"

layout(constant_id = 1) const uint D = 128;
layout(constant_id = 2) const uint N_ROT = 128;
layout(constant_id = 3) const uint NEOX = 0;
layout(constant_id = 4) const uint FORMAT = 1;
layout(constant_id = 5) const uint PAGE = 16;
#include "ops/pages.glsl"

layout(push_constant) uniform Push { RopeStorePush p; };
shared float s_x[2u * D], s_sum[WG];

/// s_x[at ..]: the head at `from` + `offset`, normed if there are weights.
void load_head(uvec2 from, uint offset, uvec2 weight, uint at) {
    const uint tid = gl_LocalInvocationID.x;
    float sum = 0.0;
    for (uint d = tid; d < D; d += WG) {
        const float x = F1(from).v[offset + d];
        s_x[at + d] = x;
        sum = fma(x, x, sum);
    }
    if (!is_null(weight)) {
        sum = subgroupAdd(sum);
        if (subgroupElect()) s_sum[gl_SubgroupID] = sum;
        barrier();
        sum = 0.0;
        for (uint i = 0u; i < gl_NumSubgroups; ++i) sum += s_sum[i];
        const float inv = 1.0 / sqrt(sum / float(D) + p.eps);
        for (uint d = tid; d < D; d += WG) s_x[at + d] = s_x[at + d] * inv * F1(weight).v[d];
    }
    barrier();
}

/// Value d of the head at s_x[at ..], rotated: three roundings, as on the CPU.
float rotated(uint at, uint d, uint angles) {
    if (d >= N_ROT) return s_x[at + d];
    const bool second = NEOX != 0u ? d >= N_ROT / 2u : (d & 1u) == 1u;
    const uint i = NEOX != 0u ? (second ? d - N_ROT / 2u : d) : d / 2u;
    const uint other = NEOX != 0u ? (second ? d - N_ROT / 2u : d + N_ROT / 2u) : d ^ 1u;
    const float c = F1(p.run).v[angles + 2u * i], s = F1(p.run).v[angles + 2u * i + 1u];
    const float x = s_x[at + d], y = s_x[at + other];
    precise const float a = x * c, b = y * s;
    precise const float r = second ? b + a : a - b;
    return r;
}

void rotate_query(uint token, uint head) {
    const uint at = token * p.q_stride + head * D, angles = Run(p.run).h.rope + token * N_ROT;
    load_head(p.q, at, p.q_norm, 0u);
    for (uint d = gl_LocalInvocationID.x; d < D; d += WG) F1(p.q).v[at + d] = rotated(0u, d, angles);
}

/// Two values to the word of halves that holds both; keep: bits of the word that stay.
void put_halves(uvec2 to, uint word, float lo, float hi, uint keep) {
    const uint bits = to_half(lo) | to_half(hi) << 16;
    U1(to).v[word] = keep == 0u ? bits : (U1(to).v[word] & keep) | (bits & ~keep);
}

/// K of n tokens in s_x, and their V, to slot .. slot + n of a page.
void store(uvec2 memory, uint page, uint head, uint slot, uint token, uint n, uint angles) {
    const uint tid = gl_LocalInvocationID.x, base = (page * p.n_head_kv + head) * (HEAD / 4u);
    const uint tile = base + (slot / 16u) * (D * 16u * (FORMAT == kF32 ? 4u : 2u) / 4u), lane = slot % 16u;
    for (uint d = tid; d < D; d += WG) {
        const float x = rotated(0u, d, angles), y = n > 1u ? rotated(D, d, angles + N_ROT) : 0.0;
        if (FORMAT == kF32) {
            F1(memory).v[tile + d * 16u + lane] = x;
            if (n > 1u) F1(memory).v[tile + d * 16u + lane + 1u] = y;
        } else {
            const bool odd = (lane & 1u) == 1u;
            put_halves(memory, tile + d * 8u + lane / 2u, odd ? 0.0 : x, odd ? x : y, n > 1u ? 0u : odd ? 0xffffu : 0xffff0000u);
        }
    }
    for (uint i = 0u; i < n; ++i) {
        const uint from = (token + i) * p.v_stride + head * D, row = base + V_EXACT / 4u;
        if (FORMAT == kF32) {
            for (uint d = tid; d < PITCH; d += WG) F1(memory).v[row + (slot + i) * PITCH + d] = d < D ? F1(p.v).v[from + d] : 0.0;
        } else {
            for (uint d = 2u * tid; d < PITCH; d += 2u * WG)
                put_halves(memory, row + ((slot + i) * PITCH + d) / 2u, d < D ? F1(p.v).v[from + d] : 0.0, d + 1u < D ? F1(p.v).v[from + d + 1u] : 0.0, 0u);
        }
    }
}

void main() {
    const uint token = gl_WorkGroupID.x;
    if (gl_WorkGroupID.y < p.n_head) {
        rotate_query(token, gl_WorkGroupID.y);
        return;
    }
    const uint head = gl_WorkGroupID.y - p.n_head;
    const TokenInfo info = token_info(p.run, token);
    const ChunkInfo chunk = chunk_info(p.run, info.chunk);
    const bool odd = (info.pos & 1) == 1;
    if (odd && token > chunk.first) return;
    const uint n = !odd && token + 1u < chunk.first + chunk.n_tokens ? 2u : 1u;
    for (uint i = 0u; i < n; ++i) load_head(p.k, (token + i) * p.k_stride + head * D, p.k_norm, i * D);
    const uint angles = Run(p.run).h.rope + token * N_ROT, at = uint(info.pos - chunk.origin);
    const uint page = U1(p.run).v[chunk.table + at / PAGE];
    store(memory_of(chunk.source, p.pages, p.exact, p.staging), page, head, at % PAGE, token, n, angles);
    if (chunk.sink != 0u && info.pos < 16) store(p.exact, U1(p.run).v[chunk.sink], head, uint(info.pos), token, n, angles);
}
