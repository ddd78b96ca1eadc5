// SPDX-License-Identifier: Apache-2.0
#include "engine/backend/vulkan_weights.h"

#include <algorithm>

#include "engine/backend/pack_panels.h"
#include "kernels/table.h"

namespace quern::engine {
namespace {

constexpr std::uint64_t kAlign = 256, kBuffer = 1u << 30;
constexpr std::uint64_t kStretch = 32u << 20;   // packed at a time

std::uint64_t padded(std::uint64_t n) { return (n + kAlign - 1) / kAlign * kAlign; }
std::uint64_t vector_bytes(const gguf::Tensor& t) { return t.n_elements() * sizeof(float); }

/// fn(tensor, slot, layer) for what a device needs of a layer, or (layer = n_layer) of the output.
template <class Fn>
void each_of_layer(const Weights& w, std::uint32_t layer, Fn&& fn) {
    if (layer == w.layers.size()) {
        fn(*w.get(Slot::output_norm, 0), Slot::output_norm, 0u);
        fn(w.matrix(Slot::output, 0), Slot::output, 0u);
        return;
    }
    for (std::size_t s = static_cast<std::size_t>(kFirstLayerSlot); s < kSlots; ++s)
        if (const gguf::Tensor* t = w.layers[layer][s]) fn(*t, static_cast<Slot>(s), layer);
}

template <class Fn>
void each_from(const Weights& w, std::uint32_t first, Fn&& fn) {
    for (std::uint32_t l = first; l <= w.layers.size(); ++l) each_of_layer(w, l, fn);
}

}  // namespace

std::uint64_t VulkanWeights::layer_bytes(const Weights& weights, std::uint32_t layer) {
    std::uint64_t n = 0;
    each_of_layer(weights, layer, [&](const gguf::Tensor& t, Slot s, std::uint32_t) { n += padded(is_vector(s) ? vector_bytes(t) : packed_size(t)); });
    return n;
}

std::uint64_t VulkanWeights::bytes() const {
    std::uint64_t n = 0;
    for (std::uint32_t l = first_layer_; l <= weights_.layers.size(); ++l) n += layer_bytes(weights_, l);
    return n;
}

/// What goes to one place of one buffer.
struct VulkanWeights::Upload {
    const gguf::Tensor* tensor;
    Slot slot;
    std::uint32_t layer;
    std::uint64_t first_panel = 0, n_panels = 0;
    std::uint64_t bytes;
    std::size_t buffer = 0, offset = 0;
};

/// Places for all tensors, one after the other, a new buffer where the last is full.
Result<std::vector<VulkanWeights::Upload>> VulkanWeights::place() {
    const std::uint64_t largest = std::min<std::uint64_t>(kBuffer, device_.info().max_allocation) / kAlign * kAlign;
    std::vector<Upload> uploads;
    each_from(weights_, first_layer_, [&](const gguf::Tensor& t, Slot s, std::uint32_t l) {
        if (is_vector(s)) return uploads.push_back({&t, s, l, 0, 0, vector_bytes(t)});
        DeviceMatrix& m = matrices_[index(s, l)];
        m = {t.type, static_cast<std::uint32_t>(t.ne[1]), static_cast<std::uint32_t>(t.ne[0]), kernels::panel_bytes(t.type, static_cast<std::uint32_t>(t.ne[0])), {}};
        const std::uint64_t panels = (t.ne[1] + kernels::kLanes - 1) / kernels::kLanes, most = std::max<std::uint64_t>(1, largest / m.panel_stride);
        for (std::uint64_t p = 0; p < panels; p += most) {
            const std::uint64_t n = std::min(most, panels - p);
            uploads.push_back({&t, s, l, p, n, n * m.panel_stride});
        }
    });
    std::vector<std::uint64_t> sizes;
    for (Upload& u : uploads) {
        if (sizes.empty() || sizes.back() + padded(u.bytes) > largest) sizes.push_back(0);
        u.buffer = sizes.size() - 1;
        u.offset = sizes.back();
        sizes.back() += padded(u.bytes);
    }
    for (const std::uint64_t n : sizes) {
        auto b = device_.allocate(n, vulkan::MemoryKind::device, "model weights");
        if (!b) return std::move(b).error();
        buffers_.push_back(std::move(*b));
    }
    return uploads;
}

Status VulkanWeights::load(ThreadPool& pool, const PrepareProgress& progress) {
    matrices_.assign(weights_.layers.size() * kSlots, {});
    vectors_.assign(weights_.layers.size() * kSlots, 0);
    auto uploads = place();
    if (!uploads) return std::move(uploads).error();
    std::uint64_t total = 0, done = 0;
    for (const Upload& u : *uploads) total += u.bytes;
    // Packed in ordinary memory: packing writes a few bytes here and there, which would crawl over a bus.
    std::vector<std::byte> packed;
    for (const Upload& u : *uploads) {
        const vulkan::Buffer& to = buffers_[u.buffer];
        if (is_vector(u.slot)) {
            vectors_[index(u.slot, u.layer)] = to.address() + u.offset;
            const std::vector<float> values = read_vector(*u.tensor);
            if (auto s = device_.write(to, u.offset, std::as_bytes(std::span(values))); !s) return s;
            done += u.bytes;
            continue;
        }
        DeviceMatrix& m = matrices_[index(u.slot, u.layer)];
        const auto first_row = static_cast<std::uint32_t>(u.first_panel * kernels::kLanes);
        m.parts.push_back({to.address() + u.offset, first_row, static_cast<std::uint32_t>(std::min<std::uint64_t>(m.n_rows - first_row, u.n_panels * kernels::kLanes))});
        const std::uint64_t most = std::max<std::uint64_t>(1, kStretch / m.panel_stride);
        for (std::uint64_t p = 0; p < u.n_panels; p += most) {
            const std::uint64_t n = std::min(most, u.n_panels - p), bytes = n * m.panel_stride;
            if (packed.size() < bytes) packed.resize(bytes);
            pack_panels(pool, *u.tensor, u.first_panel + p, n, packed.data());
            release_panels(file_, *u.tensor, u.first_panel + p, n);
            if (auto s = device_.write(to, u.offset + p * m.panel_stride, std::span(packed).first(bytes)); !s) return s;
            done += bytes;
            if (progress && !progress(done, total)) return Error{Errc::cancelled, "loading was cancelled"};
        }
    }
    return {};
}

}  // namespace quern::engine
