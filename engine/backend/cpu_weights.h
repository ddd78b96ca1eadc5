// SPDX-License-Identifier: Apache-2.0
// The CPU's form of the weights: matrices packed into panels (kernels/cpu/pack), vectors as float.
#pragma once

#include <vector>

#include "engine/backend/backend.h"
#include "engine/backend/pack_cache.h"
#include "engine/core/memory.h"
#include "engine/core/numa.h"
#include "engine/core/thread_pool.h"
#include "engine/model/weights.h"
#include "kernels/table.h"

namespace quern::engine {

/// A matrix in panels of 16 rows; or, where weights are not packed at load, as it lies in the file.
struct PackedMatrix {
    DType type = DType::F32;
    std::uint32_t n_rows = 0, n_k = 0;
    const std::byte* panels = nullptr;
    std::size_t panel_stride = 0;
    const std::byte* rows = nullptr;   // in place of panels: GGUF rows, packed anew at each use
    std::size_t row_bytes = 0;
    std::uint32_t n_panels() const { return (n_rows + kernels::kLanes - 1) / kernels::kLanes; }
};

class CpuWeights {
public:
    /// packed: matrices are packed by load(), onto the nodes that `numa` says; else they are used from the file's mapping.
    /// n_layers: the layers that run here; where that is not all, the output does not either.
    CpuWeights(const gguf::File& file, const Weights& weights, bool packed, const Numa& numa, std::uint32_t n_layers)
        : file_(file), weights_(weights), packed_(packed), numa_(numa), n_layers_(n_layers) {}

    bool packed() const { return packed_; }

    std::uint64_t packed_bytes() const;
    std::uint64_t mapped_bytes() const;
    /// Reads the vectors, and packs the matrices with all threads of the pool, giving the file's pages back as it goes. With
    /// a cache they are mapped from there if it is whole and of this model, else written there once packed; what is wrong
    /// with it is logged, never an error.
    Status load(ThreadPool& pool, const PrepareProgress& progress, const PackCacheOptions& cache);

    /// After load(). A slot must be present; Slot::output gives the tied embedding where there is no output tensor.
    const PackedMatrix& matrix(Slot s, std::uint32_t layer) const { return matrices_[index(s, layer)]; }
    const float* vector(Slot s, std::uint32_t layer) const;   // null where absent
    std::span<const float> vector_values(Slot s, std::uint32_t layer) const { return vectors_[index(s, layer)]; }
    /// The embedding where it is not packed (the output matrix is another or not here, or nothing is packed): rows are read
    /// from the mapping.
    const gguf::Tensor* mapped_embedding() const;

private:
    bool whole() const { return n_layers_ == weights_.layers.size(); }
    std::size_t index(Slot s, std::uint32_t layer) const { return layer * kSlots + static_cast<std::size_t>(s); }
    template <class Fn> void each_tensor(Fn&& fn) const;
    Status pack(ThreadPool& pool, const PrepareProgress& progress);
    template <class Fn> void each_matrix(Fn&& fn);
    Status read_cache(ThreadPool& pool, const std::string& path, PackFile& head);
    Status write_cache(ThreadPool& pool, const std::string& path, PackFile& head);

    const gguf::File& file_;
    const Weights& weights_;
    bool packed_;
    Numa numa_;
    std::uint32_t n_layers_;
    Mapping memory_;                        // of the panels, unless they lie in
    std::shared_ptr<MappedFile> cache_;
    std::vector<PackedMatrix> matrices_;
    std::vector<std::vector<float>> vectors_;
};

}  // namespace quern::engine
