// SPDX-License-Identifier: Apache-2.0
// Qwen 2 and 2.5, and the DeepSeek-R1 distillations of them: biases on Q, K and V (arXiv 2407.10671).
#include "engine/arch/all.h"

namespace quern::engine {
namespace {
constexpr TensorRule kTensors[] = {
    kTokenEmbd, kOutputNorm, kOutput,
    kAttnNorm, kAttnQ, kAttnK, kAttnV, kAttnOut,
    bias_rule(Slot::attn_q_bias, "attn_q.bias", Dim::q_rows, true),
    bias_rule(Slot::attn_k_bias, "attn_k.bias", Dim::kv_rows, true),
    bias_rule(Slot::attn_v_bias, "attn_v.bias", Dim::kv_rows, true),
    kFfnNorm, kFfnGate, kFfnUp, kFfnDown,
};
}  // namespace

const ArchSpec kArchQwen2{"qwen2", RopePairs::neox, Activation::swiglu, kTensors};

}  // namespace quern::engine
