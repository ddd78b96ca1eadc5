// SPDX-License-Identifier: Apache-2.0
// The model's tensors by slot, each checked against the manifest: present, of the right shape, of a known type.
#pragma once

#include <array>
#include <vector>

#include "engine/model/hparams.h"
#include "formats/gguf.h"

namespace quern::engine {

struct Weights {
    std::vector<std::array<const gguf::Tensor*, kSlots>> layers;  // [n_layer]; null where optional and absent
    std::array<const gguf::Tensor*, kSlots> global{};             // slots before kFirstLayerSlot

    const gguf::Tensor* get(Slot s, std::uint32_t layer) const {
        return s < kFirstLayerSlot ? global[static_cast<std::size_t>(s)] : layers[layer][static_cast<std::size_t>(s)];
    }
    /// A matrix that the model has. For Slot::output its own tensor, or the embedding where the two are tied.
    const gguf::Tensor& matrix(Slot s, std::uint32_t layer) const {
        const gguf::Tensor* t = get(s, layer);
        return *(t ? t : get(Slot::token_embd, 0));
    }
};

Result<Weights> check_weights(const gguf::File& file, const Hparams& h);

/// A vector tensor's values as float (F32, F16 or BF16 in the file).
std::vector<float> read_vector(const gguf::Tensor& t);

}  // namespace quern::engine
