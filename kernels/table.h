// SPDX-License-Identifier: Apache-2.0
// One table of kernels an ISA. All tables give the same bits on the same inputs (tests/kernels holds them to it).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/views.h"
#include "quern/result.hpp"

namespace quern::kernels {

/// CPU features a table may need; cpu/features.cpp finds them (CPUID and XGETBV, or hwcaps). AMX is there only where Linux
/// gives the process leave to use tiles, which finding it asks for.
enum Feature : std::uint32_t {
    kAvx2 = 1u << 0, kFma = 1u << 1, kF16c = 1u << 2, kBmi2 = 1u << 3,
    kAvx512 = 1u << 4,      // F, BW, VL, DQ and the system saves the registers
    kAvx512Vnni = 1u << 5, kAvx512Bf16 = 1u << 6, kAvx512Fp16 = 1u << 7, kAvxVnni = 1u << 8,
    kAmxInt8 = 1u << 9, kAmxBf16 = 1u << 10,
    kNeon = 1u << 16, kDotprod = 1u << 17, kI8mm = 1u << 18, kFp16 = 1u << 19,
};
std::uint32_t cpu_features();                       // computed anew at each call; no hidden state
std::string_view cpu_name(char* buffer, std::size_t size);  // brand string, "unknown" if there is none

/// Index of a type in the per-type arrays, in the order of formats' all_types().
std::uint32_t type_index(DType t);
inline constexpr std::uint32_t kTypes = 14;

struct KernelTable {
    const char* name;                               // "scalar", "avx2", "avxvnni", "avx512", "amx", "neon", "neon-i8mm"
    std::uint32_t needs;                            // Feature bits
    std::uint32_t priority;                         // highest that the machine can run wins

    void (*matmul[kTypes])(const MatmulArgs&);
    std::size_t (*matmul_scratch[kTypes])(std::uint32_t n_k);
    /// Row `row` (< 16) of a packed panel as n_k floats: exactly the scalar decode of the source row.
    void (*unpack_row[kTypes])(const std::byte* panel, std::uint32_t row, std::uint32_t n_k, float* out);

    /// Values [first, first + count) of a column of n floats, x being the first of them, to their places in the column's
    /// ActLayout(n). first, count and n are multiples of 32.
    void (*quantize_act)(const float* x, std::uint32_t first, std::uint32_t count, std::uint32_t n, std::byte* out);
    /// The same, and behind it a second ActLayout(n) with what the first rounding lost: the sum of two matmuls then sees
    /// the activations in about 15 bits.
    void (*quantize_act_fine)(const float* x, std::uint32_t first, std::uint32_t count, std::uint32_t n, std::byte* out);
    /// out = x / sqrt(mean(x^2) + eps) * w. w may be null (all ones). out may be x.
    void (*rms_norm)(const float* x, const float* w, float eps, std::uint32_t n, float* out);
    /// Rotates, in place, the first n_rot values of n_heads heads of head_dim each. cs: n_rot / 2 pairs (cos, sin).
    /// Pairs are (2i, 2i + 1) in rope_norm and (i, i + n_rot / 2) in rope_neox.
    void (*rope_norm)(float* x, std::uint32_t n_heads, std::uint32_t head_dim, std::uint32_t n_rot, const float* cs);
    void (*rope_neox)(float* x, std::uint32_t n_heads, std::uint32_t head_dim, std::uint32_t n_rot, const float* cs);
    /// out = silu(gate) * up, and gelu (tanh form) likewise. out may be gate.
    void (*swiglu)(const float* gate, const float* up, std::uint32_t n, float* out);
    void (*geglu)(const float* gate, const float* up, std::uint32_t n, float* out);
    void (*add)(const float* a, const float* b, std::uint32_t n, float* out);
    void (*scale)(const float* a, float s, std::uint32_t n, float* out);

    void (*kv_store[kKvExactFormats])(const KvStoreArgs&);
    void (*kv_quantize[kKvFormats - kKvExactFormats])(const KvQuantizeArgs&);
    void (*attention[kKvFormats])(const AttnArgs&);
    /// Merges partial b into partial a, both n_rows x head_dim (stride floats), ml as in AttnArgs. Associative in exact
    /// arithmetic (FlashInfer, arXiv 2501.01005, section 2.2); callers keep ascending span order.
    void (*attn_merge)(float* a, float* a_ml, const float* b, const float* b_ml, std::uint32_t n_rows,
                       std::uint32_t head_dim, std::size_t stride);
    /// out[i] = a[i] / l for each row; a row with l = 0 gives 0. sinks: null, or a score for each row that takes part in the
    /// softmax and has no value.
    void (*attn_finish)(const float* a, const float* ml, std::uint32_t n_rows, std::uint32_t head_dim,
                        std::size_t a_stride, float* out, std::size_t out_stride, const float* sinks);
    /// Index of the largest value, the lowest index where several are equal; NaN never wins. n >= 1.
    std::uint32_t (*argmax)(const float* x, std::uint32_t n);
};

/// Tables compiled into this build, whether or not the machine can run them.
std::span<const KernelTable* const> compiled_tables();
/// The best table for these features, or the one named (isa "" = best). Naming one that is unknown or that the machine
/// lacks is an Error that lists what can be had.
Result<const KernelTable*> select_table(std::string_view isa, std::uint32_t features);

// --- Packing (cpu/pack.cpp): done once at load, the same bytes for every table. ---

/// Version of the packed form, which is kept in files: goes up with every change of what pack_panel writes.
inline constexpr std::uint32_t kPackLayout = 1;
/// Bytes of one panel of 16 rows of n_k values; a multiple of 64. n_k must be a multiple of the type's block.
std::size_t panel_bytes(DType t, std::uint32_t n_k);
/// Packs rows [0, n_rows) (n_rows <= 16; missing rows become zero) of row-major GGUF data into one panel.
void pack_panel(DType t, const std::byte* rows, std::size_t row_stride, std::uint32_t n_rows, std::uint32_t n_k,
                std::byte* panel);

}  // namespace quern::kernels
