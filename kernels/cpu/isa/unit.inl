// SPDX-License-Identifier: Apache-2.0
// The body of an ISA unit. Before including this, isa/<name>.cpp has defined QUERN_ISA_NS, included its simd/ header
// and micro/ parts, and given struct Tiles; QUERN_TABLE, QUERN_TABLE_NAME, QUERN_TABLE_NEEDS and QUERN_TABLE_PRIORITY
// describe the table. Everything but the table is static or always inlined: other code never shares these symbols.
#include "kernels/cpu/tables.h"

#include "kernels/cpu/ops/argmax.inl"
#include "kernels/cpu/ops/attention.inl"
#include "kernels/cpu/ops/attention_quant.inl"
#include "kernels/cpu/ops/glu.inl"
#include "kernels/cpu/ops/kv_quantize.inl"
#include "kernels/cpu/ops/kv_store.inl"
#include "kernels/cpu/ops/matmul.inl"
#include "kernels/cpu/ops/norm.inl"
#include "kernels/cpu/ops/quantize_act.inl"
#include "kernels/cpu/ops/rope.inl"

namespace quern::kernels {

// One row a type, in the order of formats' all_types().
#define QUERN_TYPES(FLOAT, QUANT)                                                                        \
    FLOAT(LoadF32), FLOAT(LoadF16), FLOAT(LoadBF16), QUANT(DecodeQ4_0), QUANT(DecodeQ4_1),               \
        QUANT(DecodeQ5_0), QUANT(DecodeQ5_1), QUANT(DecodeQ8_0), QUANT(DecodeQ2_K), QUANT(DecodeQ3_K),   \
        QUANT(DecodeQ4_K), QUANT(DecodeQ5_K), QUANT(DecodeQ6_K), QUANT(DecodeMXFP4)
#define QUERN_MATMUL_FLOAT(E) QUERN_ISA_NS::matmul_float<QUERN_ISA_NS::E>
#define QUERN_MATMUL_QUANT(D) QUERN_ISA_NS::matmul_quant<QUERN_ISA_NS::D>
#define QUERN_SCRATCH_FLOAT(E) QUERN_ISA_NS::matmul_float_scratch<QUERN_ISA_NS::E>
#define QUERN_SCRATCH_QUANT(D) QUERN_ISA_NS::matmul_quant_scratch<QUERN_ISA_NS::D>
#define QUERN_UNPACK_FLOAT(E) QUERN_ISA_NS::unpack_row_float<QUERN_ISA_NS::E>
#define QUERN_UNPACK_QUANT(D) QUERN_ISA_NS::unpack_row_quant<QUERN_ISA_NS::D>

const KernelTable QUERN_TABLE = {
    .name = QUERN_TABLE_NAME,
    .needs = QUERN_TABLE_NEEDS,
    .priority = QUERN_TABLE_PRIORITY,
    .matmul = {QUERN_TYPES(QUERN_MATMUL_FLOAT, QUERN_MATMUL_QUANT)},
    .matmul_scratch = {QUERN_TYPES(QUERN_SCRATCH_FLOAT, QUERN_SCRATCH_QUANT)},
    .unpack_row = {QUERN_TYPES(QUERN_UNPACK_FLOAT, QUERN_UNPACK_QUANT)},
    .quantize_act = QUERN_ISA_NS::quantize_act,
    .quantize_act_fine = QUERN_ISA_NS::quantize_act_fine,
    .rms_norm = QUERN_ISA_NS::rms_norm,
    .rope_norm = QUERN_ISA_NS::rope_norm,
    .rope_neox = QUERN_ISA_NS::rope_neox,
    .swiglu = QUERN_ISA_NS::swiglu,
    .geglu = QUERN_ISA_NS::geglu,
    .add = QUERN_ISA_NS::add,
    .scale = QUERN_ISA_NS::scale,
    .kv_store = {QUERN_ISA_NS::kv_store_f32, QUERN_ISA_NS::kv_store_f16},
    .kv_quantize = {QUERN_ISA_NS::kv_quantize_q8, QUERN_ISA_NS::kv_quantize_q4},
    .attention = {QUERN_ISA_NS::attention_f32, QUERN_ISA_NS::attention_f16, QUERN_ISA_NS::attention_q8,
                  QUERN_ISA_NS::attention_q4},
    .attn_merge = QUERN_ISA_NS::attn_merge,
    .attn_finish = QUERN_ISA_NS::attn_finish,
    .argmax = QUERN_ISA_NS::argmax,
};

}  // namespace quern::kernels
