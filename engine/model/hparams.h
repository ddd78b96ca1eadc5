// SPDX-License-Identifier: Apache-2.0
// A model's numbers, read and checked from the metadata; every failure names its key.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/model/arch_spec.h"
#include "formats/gguf.h"
#include "quern/result.hpp"

namespace quern::engine {

enum class RopeScaling : std::uint8_t { none, linear, yarn, llama3 };

struct RopeParams {
    std::uint32_t n_rot = 0;           // values of a head that are rotated; even
    double freq_base = 10000.0;
    RopeScaling scaling = RopeScaling::none;
    double factor = 1.0;
    double original_n_ctx = 0;         // context before scaling
    double attn_factor = 1.0;          // YaRN: multiplies cos and sin beside its own 1 + 0.1 ln(factor)
    double beta_fast = 32.0, beta_slow = 1.0;              // YaRN (arXiv 2309.00071)
    double low_freq_factor = 1.0, high_freq_factor = 4.0;  // llama3
};

struct Hparams {
    const ArchSpec* arch = nullptr;
    std::string name;
    std::uint32_t n_vocab = 0, n_ctx_train = 0, n_embd = 0, n_layer = 0;
    std::vector<std::uint32_t> n_head, n_head_kv, n_ff;    // [n_layer]
    std::uint32_t head_dim = 0;                            // of Q, K and V alike
    std::uint32_t window = 0;                              // sliding attention window in tokens; 0: none
    float rms_eps = 0;
    float attn_scale = 0;                                  // 1 / sqrt(head_dim) unless the file says otherwise
    float attn_softcap = 0;                                // scores become cap * tanh(score / cap); 0: they do not
    RopeParams rope;

    std::uint32_t max_head() const;
    std::uint32_t max_head_kv() const;
    std::uint32_t max_ff() const;
    /// Length of a manifest dimension in `layer`.
    std::uint64_t dim(Dim d, std::uint32_t layer) const;
};

Result<Hparams> read_hparams(const gguf::File& file);

/// Angle per position of each pair, radians, [n_rot / 2], and the factor on cos and sin.
/// freq_factors: contents of rope_freqs (each divides its pair's angle), or empty.
struct RopeAngles {
    std::vector<double> freq;
    double magnitude = 1.0;
    /// cos and sin of each pair at `pos`, both times magnitude: [n_rot].
    void table(double pos, float* cos_sin) const;
};
RopeAngles rope_angles(const RopeParams& p, std::span<const float> freq_factors);

}  // namespace quern::engine
