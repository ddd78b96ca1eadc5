// SPDX-License-Identifier: Apache-2.0
// Steps of the CPU backend: plain structs with every pointer, size and kernel settled when the plan was compiled.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/backend/cpu.h"

namespace quern::engine {

struct Step;
struct CpuRun;

/// How a step does one unit of its work. Units are independent; which thread does which one never changes a result.
using UnitFn = void (*)(const Step&, const CpuRun&, std::uint32_t unit, std::byte* scratch);
/// How many units the step has in this run.
using CountFn = std::uint32_t (*)(const Step&, const CpuRun&);

/// A value's places in the arena: as floats, and rounded for quantized matmuls. Null where that form is not needed.
struct ValueBuffers {
    float* f32 = nullptr;
    std::byte* act = nullptr;
    std::uint32_t width = 0;
    std::size_t f32_stride = 0;    // floats
    std::size_t act_stride = 0;    // bytes
    bool fine = false;             // two ActLayouts a row: the rounded values, and what rounding lost
};

struct StepPart {                  // of a matmul
    PackedMatrix w;
    const float* bias = nullptr;
    ValueBuffers out;              // out.f32 null: the run's logits
    bool add = false;
    bool rounded = false;          // takes the rounded form of the input
    bool fine = false;             // both terms of it
    bool pack = false;             // the weights are not packed yet
    void (*kernel)(const kernels::MatmulArgs&) = nullptr;
    std::uint32_t panels_per_unit = 1;
};

struct Step {
    UnitFn fn = nullptr;
    CountFn count = nullptr;
    const kernels::KernelTable* table = nullptr;
    std::uint32_t layer = 0;
    bool output_rows = false;      // rows are outputs, not tokens
    ValueBuffers in, in2, in3, out;
    const float* weight = nullptr; // norms
    const float* weight2 = nullptr;
    float eps = 0;
    std::uint32_t n_parts = 0;
    StepPart parts[3] = {};
    std::uint32_t n_nodes = 1;     // stretches of each part's rows, one a NUMA node
    // embedding
    PackedMatrix embedding;
    const gguf::Tensor* mapped_embedding = nullptr;
    // rotation and attention
    const RopeAngles* angles = nullptr;
    RopePairs pairs = RopePairs::norm;
    std::uint32_t n_head = 0, n_head_kv = 0, head_dim = 0, n_rot = 0, window = 0;
    std::uint32_t n_heads_before = 0;   // KV heads of the layers before this one
    float attn_scale = 0, softcap = 0;
    const float* sinks = nullptr;  // [n_head] or null
    float* rope_table = nullptr;   // [n_tokens][n_rot]: cos, sin of each pair
    float* partials = nullptr;     // split attention: [n_head_kv][spans][n_rep][head_dim + 2]
    std::uint32_t max_spans = 0;
    const PagePool* pages = nullptr;
    const PagePool* exact = nullptr;         // two tiers: pages of the rings
    KvTiers tiers;
    std::byte* staging = nullptr;            // two tiers: one layer's F16 pages of the chunks too long for their ring
    const std::uint32_t* staging_pages = nullptr;
    Activation activation = Activation::swiglu;
};

/// One run of an executable, as its steps see it.
struct CpuRun {
    const RunArgs* args;
};

// One pair of functions a step kind.
struct StepKind { UnitFn fn; CountFn count; };
extern const StepKind kStepEmbed, kStepRopeTable, kStepNorm, kStepGather, kStepMatmul, kStepMatmulGlu, kStepRopeStore,
    kStepStage, kStepMigrate, kStepObserve, kStepAttention, kStepAttentionSplit, kStepAttentionMerge, kStepRound, kStepHandOver;

/// Whether values of which a unit makes `width` at a time can be rounded by that unit: rounding goes by blocks of 32.
inline bool rounds_in_parts(std::uint32_t width) { return width % kernels::kActBlock == 0; }
/// Panels of each of gate and up that one unit of kStepMatmulGlu takes, at most.
inline constexpr std::uint32_t kGluPanels = 4;

/// Scratch bytes that one thread needs for any of these steps.
std::size_t step_scratch_bytes(const std::vector<Step>& steps);

}  // namespace quern::engine
