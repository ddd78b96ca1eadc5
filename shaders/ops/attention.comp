// SPDX-License-Identifier: Apache-2.0
#version 460
// Flash attention over pages of any format: a group has one segment, one KV head and ROWS query rows (tokens x heads), and goes
// over the positions in blocks of T aligned at multiples of T, with a running maximum. One source for decode and prefill:
//   scores   a thread has RT rows x 8 positions and every DS-th channel; what the DS slices have is added in order
//   softmax  up to 32 threads a row, scores in shared memory
//   output   a thread has RT rows x 8 channels and every TS-th group of 8 positions; added in order at the end
// A position that a row does not see has weight 0; V of positions that no row sees is not read, so what an old page holds
// (NaN) reaches nothing. Scales of quantized pages go into the query and the weights, as on the CPU.
#extension GL_GOOGLE_include_directive : require
#include "ops/base.glsl"
#include "ops/math.glsl"

layout(constant_id = 1) const uint FORMAT = 1;
layout(constant_id = 2) const uint D = 128;
layout(constant_id = 3) const uint PAGE = 16;
layout(constant_id = 4) const uint ROWS = 4;
layout(constant_id = 5) const uint RT = 4;
layout(constant_id = 6) const uint T = 256;
#include "ops/pages.glsl"
#include "ops/kv_load.glsl"

layout(push_constant) uniform Push { AttentionPush p; };

const uint RG = ROWS / RT;                    // groups of rows
const uint UNITS = T / 8u;                    // of 8 positions
const uint DS = WG / (RG * UNITS);            // slices of channels
const uint CHANNELS = (D + 4u * DS - 1u) / (4u * DS);   // steps of a slice
const uint DG = D / 8u;                       // groups of channels of V
const uint TS = WG / (RG * DG);               // slices of positions
const uint TPR = WG / ROWS < 32u ? WG / ROWS : 32u;       // threads a row in softmax
const uint ACC = RT * 8u;                     // values that a thread adds up
const uint QP = ROWS < 32u ? ROWS : ROWS + 8u;  // row pitch of queries: slices of a step lie in different banks
const float kNone = -3.402823466e38;          // maximum of a row that sees nothing

shared float s_q[QP * D];                     // [channel][row]; in the end outputs [row][channel]
shared float s_p[ROWS * T];                   // [row][position]: scores, then weights
shared float s_red[2u * WG];
shared float s_row[3u * ROWS];                // of each row: factor of this block, maximum, sum ...
shared float s_plus[ROWS];                    // ... and sum of weight * minimum (Q4)

/// What the group works on, the same for all threads.
struct Segment {
    AttnSegment s;
    uvec2 memory;
    uint kv_head, head0, reps;                // first query head, heads
    int lo, hi;                               // positions that some row sees
};

/// The head's first byte / 16 in the page that holds position t.
uint head_at(Segment g, int t) {
    const uint page = U1(p.run).v[g.s.table + uint(t - g.s.origin) / PAGE];
    return (page * p.n_head_kv + g.kv_head) * (HEAD / 16u);
}

Segment load_segment() {
    Segment g;
    const uint at = U1(p.run).v[p.list] / 4u + 2u * gl_WorkGroupID.x;
    const uvec4 a = U4(p.run).v[at], b = U4(p.run).v[at + 1u];
    g.s = AttnSegment(a.x, a.y, int(a.z), int(a.w), b.x, int(b.y), b.z, b.w);
    g.memory = memory_of(g.s.source, p.pages, p.exact, p.staging);
    const uint pieces = (p.n_rep + p.reps - 1u) / p.reps, piece = gl_WorkGroupID.y % pieces;
    g.kv_head = gl_WorkGroupID.y / pieces;
    g.head0 = g.kv_head * p.n_rep + piece * p.reps;
    g.reps = min(p.reps, p.n_rep - piece * p.reps);
    g.lo = max(g.s.begin, token_info(p.run, g.s.first).first);
    g.hi = min(g.s.end, token_info(p.run, g.s.first + g.s.n_tokens - 1u).pos + 1);
    return g;
}

void load_queries(Segment g) {
    for (uint i = gl_LocalInvocationID.x; i < ROWS * D; i += WG) {
        const uint row = i / D, d = i % D, token = row / g.reps;
        s_q[d * QP + row] = token < g.s.n_tokens ? F1(p.q).v[(g.s.first + token) * p.q_stride + (g.head0 + row % g.reps) * D + d] : 0.0;
    }
}

/// s_p = q . k for positions block .. block + T.
void scores(Segment g, int block) {
    const uint tid = gl_LocalInvocationID.x, slice = tid % DS, unit = tid / DS % UNITS, row0 = tid / (DS * UNITS) * RT;
    float acc[ACC];
    [[unroll]] for (uint i = 0u; i < ACC; ++i) acc[i] = 0.0;
    const uint span = QUANT ? 32u : 16u, in_span = QUANT ? unit % 4u : unit % 2u;
    const int first = block + int(unit * 8u / span * span);     // of the page's tile that the unit is in
    if (first < g.hi && first + int(span) > g.lo) {
        const uint head = head_at(g, first), tile = uint(first - g.s.origin) % PAGE / 16u;
        float zeros[RT];
        [[unroll]] for (uint r = 0u; r < RT; ++r) zeros[r] = 0.0;
        KRaw ahead;
        k_load(g.memory, head, tile, in_span, 0u, slice, DS, ahead);
        for (uint i = 0u; i < CHANNELS; ++i) {
            const KRaw raw = ahead;   // the next ones are under way while these are used
            if (i + 1u < CHANNELS) k_load(g.memory, head, tile, in_span, i + 1u, slice, DS, ahead);
            [[unroll]] for (uint k = 0u; k < 4u; ++k) {
                const uint d = k_channel(i, k, slice, DS);
                if (D % (4u * DS) != 0u && d >= D) continue;
                float x[8], scale, zero;
                k_values(raw, k, x, scale, zero);
                [[unroll]] for (uint r = 0u; r < RT; ++r) {
                    float q = s_q[d * QP + row0 + r];
                    if (QUANT) q *= scale;
                    if (FORMAT == kQ4) zeros[r] = fma(q, zero, zeros[r]);
                    [[unroll]] for (uint e = 0u; e < 8u; ++e) acc[r * 8u + e] = fma(q, x[e], acc[r * 8u + e]);
                }
            }
        }
        if (FORMAT == kQ4) [[unroll]] for (uint i = 0u; i < ACC; ++i) acc[i] = fma(0.25, zeros[i / 8u], acc[i]);
    }
    for (uint s = 0u; s < DS; ++s) {
        if (slice == s)
            [[unroll]] for (uint r = 0u; r < RT; ++r)
                [[unroll]] for (uint e = 0u; e < 8u; ++e) {
                    const uint at = (row0 + r) * T + unit_token(unit, e);
                    s_p[at] = s == 0u ? acc[r * 8u + e] : s_p[at] + acc[r * 8u + e];
                }
        barrier();
    }
}

/// What one row sees.
struct RowView { int lo, hi; uvec2 mask; int mask_from; };
RowView row_view(Segment g, uint row) {
    RowView v = RowView(0, 0, uvec2(0u), 0x7fffffff);
    if (row >= g.s.n_tokens * g.reps) return v;
    const uint token = g.s.first + row / g.reps;
    const TokenInfo info = token_info(p.run, token);
    v.lo = max(g.s.begin, info.first);
    v.hi = min(g.s.end, info.pos + 1);
    const ChunkInfo chunk = chunk_info(p.run, info.chunk);
    if (chunk.masks == 0u) return v;
    const uint at = chunk.masks + 2u * (token - chunk.first);
    v.mask = uvec2(U1(p.run).v[at], U1(p.run).v[at + 1u]);
    v.mask_from = chunk.pos0;
    return v;
}
bool sees(RowView v, int t) {
    if (t < v.lo || t >= v.hi) return false;
    if (t < v.mask_from) return true;
    const uint bit = uint(t - v.mask_from);
    return bit < 64u && ((v.mask[bit / 32u] >> (bit % 32u)) & 1u) == 1u;
}

/// Scores to weights, s_row and s_plus brought up to date. Threads beyond the rows' take part in the barriers only.
void softmax(Segment g, RowView v, int block) {
    const uint tid = gl_LocalInvocationID.x, row = tid / TPR, lane = tid % TPR;
    const bool works = row < ROWS;
    float most = kNone;
    for (uint t = lane; works && t < T; t += TPR) {
        float s = s_p[row * T + t] * p.scale;
        if (p.softcap != 0.0) s = p.softcap * tanh_any(s / p.softcap);
        if (!sees(v, block + int(t))) s = kNone;
        s_p[row * T + t] = s;
        most = max(most, s);
    }
    s_red[tid] = most;
    barrier();
    const float old = works ? s_row[ROWS + row] : 0.0;
    most = old;
    for (uint i = 0u; works && i < TPR; ++i) most = max(most, s_red[row * TPR + i]);
    float sum = 0.0, plus = 0.0;
    barrier();
    for (uint t = lane; works && t < T; t += TPR) {
        float w = sees(v, block + int(t)) ? exp_neg(s_p[row * T + t] - most) : 0.0;
        sum += w;
        if (QUANT && w != 0.0) {
            const int at = block + int(t);
            const vec2 sm = v_scale(g.memory, head_at(g, at), uint(at - g.s.origin) % 32u);
            plus = fma(w, sm.y, plus);
            w *= sm.x;
        }
        s_p[row * T + t] = w;
    }
    s_red[tid] = sum;
    s_red[WG + tid] = plus;
    barrier();
    if (works && lane == 0u) {
        const float factor = exp_neg(old - most);
        sum = 0.0;
        plus = 0.0;
        for (uint i = 0u; i < TPR; ++i) {
            sum += s_red[tid + i];
            plus += s_red[WG + tid + i];
        }
        s_row[row] = factor;
        s_row[ROWS + row] = most;
        s_row[2u * ROWS + row] = fma(s_row[2u * ROWS + row], factor, sum);
        s_plus[row] = fma(s_plus[row], factor, plus);
    }
    barrier();
}

/// acc = acc * factor + weights . V.
void outputs(Segment g, int block, uint row0, uint c, uint slice, inout float acc[ACC]) {
    [[unroll]] for (uint i = 0u; i < ACC; ++i) acc[i] *= s_row[row0 + i / 8u];
    const uint begin = uint(max(g.lo - block, 0)) / 8u, end = (uint(min(g.hi - block, int(T))) + 7u) / 8u;
    for (uint u = begin + slice; u < end; u += TS) {
        const int t = block + int(8u * u);
        const uint in_page = uint(t - g.s.origin) % PAGE;
        VRaw raw;
        // Slots are counted from the page's first, which lies at t - in_page.
        v_load(g.memory, head_at(g, t), in_page, uint(max(g.lo - t, 0)) + in_page, uint(min(g.hi - t, 8)) + in_page, c, raw);
        [[unroll]] for (uint e = 0u; e < 8u; ++e) {
            float x[8];
            v_values(raw, e, x);
            [[unroll]] for (uint r = 0u; r < RT; ++r) {
                const float w = s_p[(row0 + r) * T + 8u * u + e];
                [[unroll]] for (uint d = 0u; d < 8u; ++d) acc[r * 8u + d] = fma(w, x[d], acc[r * 8u + d]);
            }
        }
    }
}

void main() {
    const Segment g = load_segment();
    const uint tid = gl_LocalInvocationID.x;
    load_queries(g);
    if (tid < ROWS) {
        s_row[ROWS + tid] = kNone;
        s_row[2u * ROWS + tid] = 0.0;
        s_plus[tid] = 0.0;
    }
    barrier();
    const RowView v = row_view(g, tid / TPR);
    const uint c = tid % DG, row0 = tid / DG % RG * RT, slice = tid / (DG * RG);
    float acc[ACC];
    [[unroll]] for (uint i = 0u; i < ACC; ++i) acc[i] = 0.0;
    for (int block = g.lo / int(T) * int(T); block < g.hi; block += int(T)) {
        scores(g, block);
        softmax(g, v, block);
        if (slice < TS) outputs(g, block, row0, c, slice, acc);
        barrier();
    }
    for (uint s = 0u; s < TS; ++s) {   // queries are done with
        if (slice == s)
            [[unroll]] for (uint i = 0u; i < ACC; ++i) {
                const uint at = (row0 + i / 8u) * D + 8u * c + i % 8u;
                s_q[at] = s == 0u ? acc[i] : s_q[at] + acc[i];
            }
        barrier();
    }
    const uint n_head = p.n_head_kv * p.n_rep, rows = g.s.n_tokens * g.reps;
    for (uint i = tid; i < rows * D; i += WG) {
        const uint row = i / D, at = (g.s.slot + row / g.reps) * n_head + g.head0 + row % g.reps;
        F1(p.to).v[at * D + i % D] = s_q[i] + s_plus[row];
    }
    if (tid < rows) F2(p.ml).v[(g.s.slot + tid / g.reps) * n_head + g.head0 + tid % g.reps] = vec2(s_row[ROWS + tid], s_row[2u * ROWS + tid]);
}
