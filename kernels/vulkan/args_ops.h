// SPDX-License-Identifier: Apache-2.0
// Push constants and lists of work of the kernels that read no weight matrix. Both languages, as args.h. ops.h says which
// module takes which, with what constants and groups. (A shader includes args.h first.)
#ifndef QUERN_VULKAN_ARGS_OPS_H
#define QUERN_VULKAN_ARGS_OPS_H
#ifdef __cplusplus
#include "kernels/vulkan/args.h"
namespace quern::vulkan {
#define ADDR std::uint64_t
#endif

// Where a page lies: the pool of the block tables, the pool of exact pages of a two-tier cache, one layer's staging memory.
const uint kSourcePages = 0, kSourceExact = 1, kSourceStaging = 2;

// RunHeader's lists by word, for `list` below; 0: row i is row i.
const uint kListOutputs = 7, kListMerges = 10, kListStage = 11, kListSegments = 12, kListQuantize = 16, kListKeep = 17;

/// Some positions that some query tokens of one chunk look at, and where their partial results go. Token i of the segment
/// sees position p if begin <= p < end, TokenInfo::first <= p <= TokenInfo::pos and, from its chunk's pos0 on, its mask has it.
struct AttnSegment {
    uint first, n_tokens;   // in the batch; n_tokens * reps <= rows of the kernel
    int begin, end;         // positions; anything within what the table covers
    uint table;             // word offset from the run's start: page ids
    int origin;             // position at which the table begins, a multiple of the page's tokens
    uint source;
    uint slot;              // partial of token i: row slot + i
};

/// The partials of one token: rows slot, slot + stride, ..., merged in that order.
struct AttnMerge { uint slot, stride, n, pad; };

/// One group of 32 tokens to quantize: F16 pages of 16 tokens to one page of the quantized pool.
struct KvGroup { uint source, page0, page1, to; };

struct PageCopy { uint from_source, from_page, to_source, to_page; };

// Strides are in floats and multiples of 4; addresses are multiples of 16. A null address where said: there is none.

/// to[i] = x[row] / sqrt(mean(x[row]^2) + eps) * weight, n values; row = i, or entry i of the list (indices). weight may be
/// null, to may be x without a list.
struct NormPush {
    ADDR run, x, weight, to;
    uint list, x_stride, to_stride, n;
    float eps;
    uint pad;
};

/// to[i] = x[row], n values.
struct GatherPush {
    ADDR run, x, to;
    uint list, x_stride, to_stride, n;
};

/// to[i] = f(a[i], b[i]), n values a row: activation(a) * b, or a + b. to may be a or b.
struct PairPush {
    ADDR a, b, to;
    uint a_stride, b_stride, to_stride, n;
};

/// Rotates Q in place, stores K (rotated) and V. Heads lie one behind the other in a row. q_norm, k_norm: [head_dim] weights
/// of an RMS norm of each head before it, or null. pages, exact, staging: the layer's first byte in each memory, null if unused.
/// K and V rows stay as they were.
struct RopeStorePush {
    ADDR run, q, k, v, q_norm, k_norm, pages, exact, staging;
    uint q_stride, k_stride, v_stride, n_head, n_head_kv;
    float eps;
};

/// Partials of a list of segments. to: float[rows][n_head][head_dim], sums of exp(s - max) v; ml: float[rows][n_head][2],
/// (max, sum of exp(s - max)), or (-3.4e38, 0) and outputs 0 for a row that sees nothing. s = (q . k) * scale, then
/// softcap * tanh(s / softcap) unless softcap is 0. Query head h shares KV head h / n_rep; a group takes `reps` of those n_rep.
struct AttentionPush {
    ADDR run, q, pages, exact, staging, to, ml;
    uint list, q_stride, n_head_kv, n_rep, reps;
    float scale, softcap;
    uint pad;
};

/// to[token][n_head][head_dim] from partials; sinks: [n_head] scores without a value, or null.
struct MergePush {
    ADDR run, parts, ml, sinks, to;
    uint list, n_head, to_stride, pad;
};

/// Groups of 32 tokens of F16 pages of 16 to pages of Q8 or Q4: the layer's first byte in each memory.
struct KvQuantizePush {
    ADDR run, pages, exact, staging;
    uint list, n_head_kv;
};

/// Whole pages of one layer. page_bytes: a multiple of 16.
struct CopyPagesPush {
    ADDR run, pages, exact, staging;
    uint list, page_bytes;
};

/// The k best of each part of a row's n inputs, best first: uvec2 (index, value's bits); index 0xffffffff where there are
/// fewer. Equal values: the lowest index first; NaN is left out (argmax of nothing but NaN: index 0). Inputs: floats, or
/// with FROM_PAIRS uvec2 of a run before. in_stride and to_stride in elements of their kind, from row to row.
struct TopPush {
    ADDR from, to;
    uint n, in_stride, k, to_stride;
};

#ifdef __cplusplus
}  // namespace quern::vulkan
#undef ADDR
#endif
#endif
