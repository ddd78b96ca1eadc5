// SPDX-License-Identifier: Apache-2.0
// What runs a plan. A backend holds the weights in the form its kernels like, turns the plan into an executable for each
// batch bucket, and runs it over KV pages. docs/architecture.md says how a plan cut at a layer border serves two of them.
#pragma once

#include <bit>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "engine/kv/page_pool.h"
#include "engine/plan/plan.h"
#include "quern/result.hpp"

namespace quern::engine {

/// Consecutive new tokens of one sequence inside a batch.
struct SeqChunk {
    const std::uint32_t* pages;   // block table; covers positions 0 .. pos0 + n_tokens - 1
    std::uint32_t first;          // index in the batch of the chunk's first token
    std::uint32_t n_tokens;
    std::int32_t pos0;            // position of that token in its sequence
    /// With two tiers `pages` covers what is quantized once the chunk has run, and this is ExactRing::table().
    const std::uint32_t* exact = nullptr;
    /// Where a chunk too long for its ring leaves its exact positions from kept_from on, a multiple of a page: page ids. Null: in
    /// the ring, as far as that goes.
    const std::uint32_t* kept = nullptr;
    std::int32_t kept_from = 0;
    /// A tree of at most kMaxTree tokens instead of a line: [n_tokens], bit j of mask[i]: token i sees token j of the chunk. Its own
    /// bit is set and none behind it; its position is pos0 + the number of the others. Keys and values lie in the order of the
    /// batch. Not with a sliding window; with two tiers only where all see the same positions quantized.
    const std::uint64_t* mask = nullptr;
    static constexpr std::uint32_t kMaxTree = 64;

    /// Position of its token i.
    std::int32_t position(std::uint32_t i) const { return pos0 + (mask ? std::popcount(mask[i]) - 1 : static_cast<std::int32_t>(i)); }
};

/// One run. tokens[i] < n_vocab; chunks cover the batch in order; outputs: ascending batch indices.
struct RunArgs {
    std::span<const std::int32_t> tokens;
    std::span<const SeqChunk> chunks;
    std::span<const std::uint32_t> outputs;
    float* logits = nullptr;      // [outputs.size()][logits_stride floats]
    std::size_t logits_stride = 0;
    /// Null, or what the attention of the tokens of the only chunk is spent on, which the run adds up: [KV heads of all layers]
    /// [observed_blocks(positions)], softmax weights summed over tokens and the heads that share the KV head. A backend that
    /// cannot say leaves zeros.
    double* observed = nullptr;
    static constexpr std::uint32_t kObservedBlock = 32;   // positions
    static constexpr std::uint32_t observed_blocks(std::uint32_t n_positions) { return (n_positions + kObservedBlock - 1) / kObservedBlock; }
    float* crossing = nullptr;    // [tokens.size()][n_embd]: the residual stream between two backends
};

/// Batch sizes that a plan is made ready for; none above the largest batch but that one itself.
inline constexpr std::uint32_t kBuckets[] = {1, 8, 32, 128, 512, 1024, 2048, 4096};

/// A plan made ready for batches of up to a bucket's size.
class Executable {
public:
    virtual ~Executable() = default;
    virtual std::uint32_t bucket() const = 0;
};

struct BackendMemory {
    std::uint64_t weights_packed = 0, weights_mapped = 0, buffers = 0;
};

/// Called with bytes done and in all; false cancels.
using PrepareProgress = std::function<bool(std::uint64_t, std::uint64_t)>;

class Backend {
public:
    virtual ~Backend() = default;
    virtual std::string name() const = 0;
    /// Whether it can run this kind of operation on weights of this type (F32 where there are none).
    virtual bool supports(OpKind op, DType weight) const = 0;
    /// Bytes that prepare() and compile() will hold, known before anything is allocated.
    virtual BackendMemory estimate() const = 0;
    /// Packs or uploads the weights.
    virtual Status prepare(const PrepareProgress& progress) = 0;
    virtual Result<std::unique_ptr<Executable>> compile(std::uint32_t bucket) = 0;
    /// Not reentrant: the executor serializes runs. Allocates nothing.
    virtual Status run(Executable& executable, const RunArgs& args) = 0;
    virtual BackendMemory memory() const = 0;
};

}  // namespace quern::engine
