// SPDX-License-Identifier: Apache-2.0
// Qwen 3, dense: RMS norm on each head of Q and K before the rotation, no biases (arXiv 2505.09388).
#include "engine/arch/all.h"

namespace quern::engine {
namespace {
constexpr TensorRule kTensors[] = {
    kTokenEmbd, kOutputNorm, kOutput,
    kAttnNorm, kAttnQ, kAttnK, kAttnV, kAttnOut,
    {Slot::attn_q_norm, "attn_q_norm.weight", Dim::head_dim, Dim::one, true},
    {Slot::attn_k_norm, "attn_k_norm.weight", Dim::head_dim, Dim::one, true},
    kFfnNorm, kFfnGate, kFfnUp, kFfnDown,
};
}  // namespace

const ArchSpec kArchQwen3{"qwen3", RopePairs::neox, Activation::swiglu, kTensors};

}  // namespace quern::engine
