// SPDX-License-Identifier: Apache-2.0
// Llama 1 to 3.x, Mistral 7B and Nemo, SmolLM and all else that GGUF calls "llama" (arXiv 2302.13971, 2310.06825).
// The converter has permuted Q and K for pairs (2i, 2i + 1).
#include "engine/arch/all.h"

namespace quern::engine {
namespace {
constexpr TensorRule kTensors[] = {
    kTokenEmbd, kOutputNorm, kOutput, kRopeFreqs,
    kAttnNorm, kAttnQ, kAttnK, kAttnV, kAttnOut,
    bias_rule(Slot::attn_q_bias, "attn_q.bias", Dim::q_rows, false),
    bias_rule(Slot::attn_k_bias, "attn_k.bias", Dim::kv_rows, false),
    bias_rule(Slot::attn_v_bias, "attn_v.bias", Dim::kv_rows, false),
    bias_rule(Slot::attn_output_bias, "attn_output.bias", Dim::n_embd, false),
    kFfnNorm, kFfnGate, kFfnUp, kFfnDown,
};
}  // namespace

const ArchSpec kArchLlama{"llama", RopePairs::norm, Activation::swiglu, kTensors};

}  // namespace quern::engine
