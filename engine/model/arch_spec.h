// SPDX-License-Identifier: Apache-2.0
// What tells one architecture from another: constants only, one file an architecture in engine/arch/.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace quern::engine {

/// Which values of a head a rotation pairs: (2i, 2i + 1) or (i, i + n_rot / 2).
enum class RopePairs : std::uint8_t { norm, neox };
enum class Activation : std::uint8_t { swiglu, geglu };

/// A tensor's place in the model. The layer slots come after first_layer_slot.
enum class Slot : std::uint8_t {
    token_embd, output_norm, output, rope_freqs,
    attn_norm, attn_q, attn_k, attn_v, attn_q_bias, attn_k_bias, attn_v_bias, attn_q_norm, attn_k_norm,
    attn_sinks,   // [n_head]: a score in each softmax without a value
    attn_output, attn_output_bias, ffn_norm, ffn_gate, ffn_up, ffn_down, count,
};
inline constexpr Slot kFirstLayerSlot = Slot::attn_norm;
inline constexpr std::size_t kSlots = static_cast<std::size_t>(Slot::count);

/// Vectors are kept as float; every other slot is a matrix for the matmul kernels.
constexpr bool is_vector(Slot s) {
    switch (s) {
        case Slot::output_norm: case Slot::rope_freqs: case Slot::attn_norm: case Slot::attn_q_bias: case Slot::attn_k_bias:
        case Slot::attn_v_bias: case Slot::attn_q_norm: case Slot::attn_k_norm: case Slot::attn_sinks: case Slot::attn_output_bias: case Slot::ffn_norm:
            return true;
        default: return false;
    }
}

/// A length in a tensor's expected shape, resolved for the layer at hand.
enum class Dim : std::uint8_t {
    one, n_vocab, n_embd, n_ff, head_dim, rot_pairs,
    q_rows,   // n_head * head_dim
    kv_rows,  // n_head_kv * head_dim
};

/// One row of a manifest. Matrices are [rows][cols] with GGUF's ne[0] = cols; vectors have cols = Dim::one.
struct TensorRule {
    Slot slot;
    const char* name;   // GGUF name; in layer slots what follows "blk.N."
    Dim rows, cols;
    bool required;
};

struct ArchSpec {
    const char* name;              // general.architecture
    RopePairs rope_pairs;
    Activation activation;
    std::span<const TensorRule> tensors;
};

/// The architecture of this name, nullptr if there is none; and all of them, for error texts and tests.
const ArchSpec* find_arch(std::string_view name);
std::span<const ArchSpec* const> all_archs();

// Rows that every llama-like decoder shares; an architecture lists them and adds its own.
inline constexpr TensorRule kTokenEmbd{Slot::token_embd, "token_embd.weight", Dim::n_vocab, Dim::n_embd, true};
inline constexpr TensorRule kOutputNorm{Slot::output_norm, "output_norm.weight", Dim::n_embd, Dim::one, true};
inline constexpr TensorRule kOutput{Slot::output, "output.weight", Dim::n_vocab, Dim::n_embd, false};  // absent: tied
inline constexpr TensorRule kRopeFreqs{Slot::rope_freqs, "rope_freqs.weight", Dim::rot_pairs, Dim::one, false};
inline constexpr TensorRule kAttnNorm{Slot::attn_norm, "attn_norm.weight", Dim::n_embd, Dim::one, true};
inline constexpr TensorRule kAttnQ{Slot::attn_q, "attn_q.weight", Dim::q_rows, Dim::n_embd, true};
inline constexpr TensorRule kAttnK{Slot::attn_k, "attn_k.weight", Dim::kv_rows, Dim::n_embd, true};
inline constexpr TensorRule kAttnV{Slot::attn_v, "attn_v.weight", Dim::kv_rows, Dim::n_embd, true};
inline constexpr TensorRule kAttnOut{Slot::attn_output, "attn_output.weight", Dim::n_embd, Dim::q_rows, true};
inline constexpr TensorRule kFfnNorm{Slot::ffn_norm, "ffn_norm.weight", Dim::n_embd, Dim::one, true};
inline constexpr TensorRule kFfnGate{Slot::ffn_gate, "ffn_gate.weight", Dim::n_ff, Dim::n_embd, true};
inline constexpr TensorRule kFfnUp{Slot::ffn_up, "ffn_up.weight", Dim::n_ff, Dim::n_embd, true};
inline constexpr TensorRule kFfnDown{Slot::ffn_down, "ffn_down.weight", Dim::n_embd, Dim::n_ff, true};

/// The four bias rows; optional where `required` is false.
constexpr TensorRule bias_rule(Slot slot, const char* name, Dim rows, bool required) {
    return {slot, name, rows, Dim::one, required};
}

}  // namespace quern::engine
