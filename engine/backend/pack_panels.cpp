// SPDX-License-Identifier: Apache-2.0
#include "engine/backend/pack_panels.h"

#include <algorithm>

#include "kernels/table.h"

namespace quern::engine {
namespace {

struct PackJob {
    const gguf::Tensor* tensor;
    std::uint64_t first, n;
    std::size_t row_bytes, panel_bytes;
    std::byte* panels;
};
constexpr std::uint64_t kPanelsPerUnit = 8;

std::uint32_t pack_units(void* context, std::uint32_t step) {
    const auto& job = *static_cast<const PackJob*>(context);
    return step ? Job::kEnd : static_cast<std::uint32_t>((job.n + kPanelsPerUnit - 1) / kPanelsPerUnit);
}

void pack_unit(void* context, std::uint32_t, std::uint32_t unit, std::uint32_t) {
    const auto& job = *static_cast<const PackJob*>(context);
    const std::uint64_t end = std::min(job.n, (unit + 1) * kPanelsPerUnit);
    for (std::uint64_t i = unit * kPanelsPerUnit; i < end; ++i) {
        const std::uint64_t row = (job.first + i) * kernels::kLanes;
        const auto rows = static_cast<std::uint32_t>(std::min<std::uint64_t>(kernels::kLanes, job.tensor->ne[1] - row));
        kernels::pack_panel(job.tensor->type, job.tensor->data.data() + row * job.row_bytes, job.row_bytes, rows,
                            static_cast<std::uint32_t>(job.tensor->ne[0]), job.panels + i * job.panel_bytes);
    }
}

}  // namespace

std::uint64_t packed_size(const gguf::Tensor& t) {
    const std::uint64_t panels = (t.ne[1] + kernels::kLanes - 1) / kernels::kLanes;
    return panels * kernels::panel_bytes(t.type, static_cast<std::uint32_t>(t.ne[0]));
}

void pack_panels(ThreadPool& pool, const gguf::Tensor& t, std::uint64_t first, std::uint64_t n, std::byte* panels) {
    PackJob job{&t, first, n, t.data.size() / t.ne[1], kernels::panel_bytes(t.type, static_cast<std::uint32_t>(t.ne[0])), panels};
    pool.run({pack_units, pack_unit, &job}, pool.size());
}

void release_panels(const gguf::File& file, const gguf::Tensor& t, std::uint64_t first, std::uint64_t n) {
    const std::uint64_t row_bytes = t.data.size() / t.ne[1], from = first * kernels::kLanes * row_bytes;
    const std::uint64_t to = std::min<std::uint64_t>(t.data.size(), (first + n) * kernels::kLanes * row_bytes);
    if (t.split < file.mappings().size()) file.mappings()[t.split]->release(t.data.subspan(from, to - from));
}

}  // namespace quern::engine
