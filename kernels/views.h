// SPDX-License-Identifier: Apache-2.0
// Plain argument structs of the kernels. Everything is sized, placed and chosen when the plan is built: a kernel neither
// allocates, nor branches on a type, nor knows of threads. docs/numerics.md states the arithmetic that every table
// follows to the bit.
#pragma once

#include <cstddef>
#include <cstdint>

#include "formats/dtype.h"

namespace quern::kernels {

/// Rows interleaved in a packed panel, tokens in a K tile, lanes of the vector vocabulary: the same on every ISA, so
/// packed weights and KV pages mean the same everywhere and every table can give the same bits.
inline constexpr std::uint32_t kLanes = 16;
/// Activations are rounded to int8 in blocks of this many.
inline constexpr std::uint32_t kActBlock = 32;
/// Attention treats the cache in spans of this many positions, aligned at multiples of it. Partial results are always
/// made per span and merged in ascending order, whatever the thread count or the cut of the prompt.
inline constexpr std::uint32_t kAttnSpan = 256;
/// Most query rows (tokens x heads that share a KV head) in one attention call.
inline constexpr std::uint32_t kAttnMaxRows = 64;

/// Byte offsets inside one rounded activation column of n values (n a multiple of 32):
/// int8 q[n] in +-127 | float d[n/32] | int32 sum32[n/32] | float dsum32[n/32] = d * sum32 | int32 sum16[n/16].
struct ActLayout {
    std::size_t d, sum32, dsum32, sum16, bytes;
    constexpr explicit ActLayout(std::size_t n)
        : d(n), sum32(d + n / 8), dsum32(sum32 + n / 8), sum16(dsum32 + n / 8), bytes((sum16 + n / 4 + 63) / 64 * 64) {}
};

/// y[c * y_stride + r] (+)= sum over k of W[r][k] * x[c][k] (+ bias[r]), for rows of whole packed panels.
/// With `pairs`, columns 2 c and 2 c + 1 of x are the two terms of quantize_act_fine and y[c] gets one after the other.
struct MatmulArgs {
    const std::byte* w;         // first panel; 64-byte aligned
    std::size_t panel_stride;   // bytes from one panel to the next
    std::uint32_t n_rows;       // valid rows from the first panel on; the last panel may be partial
    std::uint32_t n_k;          // row length; a multiple of the type's block
    const std::byte* x;         // rounded columns (ActLayout) for quantized W; float[n_k] columns for F32, F16, BF16
    std::size_t x_stride;       // bytes from one column to the next; a multiple of 64
    std::uint32_t n_cols;       // of x
    float* y;                   // [n_cols][y_stride], first row of these panels; with pairs n_cols / 2 columns
    std::size_t y_stride;       // floats
    const float* bias;          // [n_rows] or null
    bool add;                   // y += instead of y =
    bool pairs;                 // quantized W alone; n_cols is even
    std::byte* scratch;         // matmul_scratch(type, n_k) bytes, 64-byte aligned, one a thread; null allowed if that is 0
};

/// F32 and F16 take tokens one at a time; Q8 and Q4 whole groups of kKvGroup tokens, from F16 pages.
enum class KvFormat : std::uint8_t { F32 = 0, F16 = 1, Q8 = 2, Q4 = 3 };
inline constexpr int kKvFormats = 4;
inline constexpr int kKvExactFormats = 2;
constexpr bool is_quantized(KvFormat f) { return static_cast<int>(f) >= kKvExactFormats; }
/// Tokens that share a scale of K; a page of Q8 or Q4 holds as many.
inline constexpr std::uint32_t kKvGroup = 32;

/// Byte offsets of one head in a page of Q8 or Q4. K has a scale a channel over the page's tokens, V a token over the
/// channels. Q8: value = code * scale, codes signed, scales F16.
/// Q4: codes 0 .. 15. K: value = (code + zero / 4) * scale, zero int8, scale 5 bits of exponent and 3 of mantissa (an F16
/// without sign and low bits). V: value = code * scale + minimum, both F16.
/// K codes, Q8: [head_dim][32 tokens] bytes. Q4: [head_dim / 4][16 lanes] words of 32 bits; in lane i, bits 8 c .. 8 c + 3
/// are channel c of four for token i, the next four bits for token 16 + i.
/// V codes, Q8: [v_pitch / 16][32 tokens][16 channels] bytes. Q4: [v_pitch / 16][4][16 lanes] words; word u of a column
/// has in lane i, bits 4 t .. 4 t + 3, channel i of token 8 u + t.
struct KvQuantLayout {
    std::size_t k_scale, k_zero, v_codes, v_scale, v_min, bytes;
    constexpr KvQuantLayout(KvFormat f, std::uint32_t head_dim) {
        const bool q4 = f == KvFormat::Q4;
        const std::size_t pitch = (head_dim + 15) / 16 * 16;
        k_scale = q4 ? (head_dim + 3) / 4 * 64 : std::size_t{head_dim} * kKvGroup;
        k_zero = k_scale + pitch;
        v_codes = (k_scale + pitch * 2 + 63) / 64 * 64;
        v_scale = v_codes + pitch * kKvGroup / (q4 ? 2 : 1);
        v_min = v_scale + kKvGroup * 2;
        bytes = ((q4 ? v_min + kKvGroup * 2 : v_min) + 63) / 64 * 64;
    }
};

/// Where one KV head of one layer lies. A page holds page_tokens positions (a multiple of 16; kKvGroup in Q8 and Q4, whose
/// layout is KvQuantLayout from k_offset on):
/// K as [page_tokens / 16][head_dim][16 tokens], V as [page_tokens][v_pitch] with v_pitch = head_dim rounded up to 16.
struct KvHeadView {
    std::byte* base;               // layer's storage
    const std::uint32_t* pages;    // page ids of the sequence; pages[p / page_tokens] holds position p
    std::size_t page_stride;       // bytes from page id to page id
    std::size_t k_offset, v_offset;  // of this head inside a page
    std::uint32_t page_tokens;
    std::uint32_t head_dim;
};

/// Attention of query rows that share a KV head over positions [begin, end) of one span.
/// Row (i, r), i < n_tokens, r < n_rep: query at q + i * q_stride + r * head_dim, position pos0 + i; it sees positions t
/// with begin <= t < end, t >= first, t <= pos0 + i and, if window > 0, t > pos0 + i - window; if mask is not null, of positions
/// t >= mask_from only those with bit t - mask_from in mask[i].
/// Results, row index i * n_rep + r: out[row * out_stride ..] = sum of exp(s - m) * v (not divided), max m and sum l in
/// ml[2 * row], ml[2 * row + 1]. A row that sees nothing gives out 0, m -inf, l 0.
struct AttnArgs {
    KvHeadView kv;
    std::int32_t begin, end;       // multiples of 16 (begin) and, in Q8 and Q4, of kKvGroup (both); at most kAttnSpan apart
    std::int32_t first;            // what lies before is not looked at; 0: all is
    std::int32_t known;            // pages are known of positions below: those from end on may be fetched ahead; 0: none
    const float* q;
    std::size_t q_stride;          // floats from token to token
    std::uint32_t n_tokens, n_rep; // n_tokens * n_rep <= kAttnMaxRows
    std::int32_t pos0;
    std::int32_t window;           // 0: none
    float scale;                   // s = (q . k) * scale
    float softcap;                 // 0: none; else s = softcap * tanh(s / softcap)
    const std::uint64_t* mask;     // [n_tokens] or null; then end <= mask_from + 64
    std::int32_t mask_from;
    float* out;
    std::size_t out_stride;        // floats from row to row
    float* ml;
    std::byte* scratch;            // kAttnScratch bytes, 64-byte aligned, one a thread
};
/// Widened keys or values that all rows of a call share.
inline constexpr std::size_t kAttnPiece = 64 << 10;
/// Scores and queries of kAttnMaxRows rows (of 256 values and padding), and a piece.
inline constexpr std::size_t kAttnScratch = std::size_t{kAttnMaxRows} * (kAttnSpan + 256 + 16) * sizeof(float) + kAttnPiece;

/// Writes n_tokens new K and V heads (floats, token i at k + i * k_stride, head_dim each) at positions pos0 ....
struct KvStoreArgs {
    KvHeadView kv;
    const float* k;
    const float* v;
    std::size_t k_stride, v_stride;  // floats
    std::uint32_t n_tokens;
    std::int32_t pos0;
};

/// One group: positions [from_pos, from_pos + kKvGroup) of F16 pages to [to_pos, ...) of pages of Q8 or Q4.
struct KvQuantizeArgs {
    KvHeadView from, to;
    std::int32_t from_pos, to_pos;   // multiples of 16 and of kKvGroup
};

}  // namespace quern::kernels
