// SPDX-License-Identifier: Apache-2.0
// A forward pass as a flat list of operations on named values: what to compute, for any backend. A backend turns it into
// steps of its own for each batch bucket (engine/backend).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/model/weights.h"

namespace quern::engine {

using ValueId = std::uint16_t;

/// Rows of a value: one a token of the batch, or one an output (a token whose logits are wanted).
enum class Rows : std::uint8_t { tokens, outputs };

struct Value {
    std::string name;          // for error texts and tests: "l3.q"
    std::uint32_t width = 0;   // floats a row
    Rows rows = Rows::tokens;
};

enum class OpKind : std::uint8_t {
    embed,       // out = rows of token_embd at the tokens
    rms_norm,    // out = norm(in) * weight
    gather,      // out (rows: outputs) = the output rows of in (rows: tokens)
    matmul,      // each part: out (+)= in * W^T (+ bias)
    rope_store,  // norms heads of in (Q) and in2 (K) where the model has QK norm, rotates both, stores in2 and in3 (V)
    attention,   // out = attention of in (Q) over the cache of the layer
    matmul_glu,  // out = activation(in * W0^T) * (in * W1^T), of the two parts' weights; their own out is unused
    hand_over,   // the rows of in leave for another backend, which goes on from there: RunArgs::crossing
    take_over,   // out = rows that another backend handed over
};

struct MatmulPart {
    Slot weight = Slot::count;
    Slot bias = Slot::count;   // count: none
    ValueId out = 0;
    bool add = false;          // out += : the residual
};

struct Op {
    OpKind kind;
    std::uint32_t layer = 0;
    ValueId in = 0, in2 = 0, in3 = 0, out = 0;
    Slot weight = Slot::count;            // rms_norm
    std::uint32_t n_parts = 0;
    MatmulPart parts[3] = {};
};

/// Matmuls whose input one int8 term is too coarse for: rounding there is most of the divergence from the exact result, for
/// little of the work (docs/numerics.md).
constexpr bool wants_fine(Slot s) { return s == Slot::attn_v || s == Slot::output; }

/// Bucket-independent. values[logits] is written where the caller wants it, not in the arena.
struct Plan {
    std::vector<Value> values;
    std::vector<Op> ops;
    ValueId logits = 0;
};

Plan build_plan(const Hparams& h, const Weights& w);

/// The plan up to `layer` (< n_layer), with the residual stream handed over at the end; and what follows, the output among it.
struct PlanCut { Plan head, tail; };
PlanCut cut_plan(const Plan& plan, std::uint32_t layer);

/// One buffer that lives from step `first` to step `last`, both included.
struct BufferLife {
    std::size_t bytes;
    std::uint32_t first, last;
    std::size_t offset = 0;    // result
};
/// Places buffers whose lives do not overlap on top of each other (greedy by size, 64-byte aligned); returns the arena's
/// size in bytes.
std::size_t place_buffers(std::vector<BufferLife>& buffers);

}  // namespace quern::engine
