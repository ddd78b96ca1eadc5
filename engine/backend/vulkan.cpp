// SPDX-License-Identifier: Apache-2.0
#include "engine/backend/vulkan.h"

#include <algorithm>
#include <cstring>

#include "engine/backend/vulkan_check.h"
#include "engine/core/clock.h"
#include "formats/text.h"

namespace quern::engine {

using vulkan::Buffer;
using vulkan::MemoryKind;

/// The device's layers of the page pool: a buffer a layer. Runs and copies take turns in the device.
class VulkanPages final : public DevicePages {
public:
    VulkanPages(vulkan::Device& device, const KvShape& shape, std::uint32_t first_layer, std::span<const Buffer> layers)
        : device_(device), shape_(shape), first_layer_(first_layer), layers_(layers) {}

    Status copy(std::uint32_t from, std::uint32_t to) override {
        auto c = device_.record();
        if (!c) return std::move(c).error();
        for (std::size_t l = 0; l < layers_.size(); ++l) {
            const std::size_t n = part_bytes(first_layer_ + static_cast<std::uint32_t>(l));
            c->copy(layers_[l], from * n, layers_[l], to * n, n);
        }
        if (auto s = c->finish(); !s) return s;
        return device_.run(*c, "copying a page of the KV cache");
    }
    Status read(std::uint32_t layer, std::uint32_t page, std::span<std::byte> to) const override {
        return device_.read(layers_[layer - first_layer_], page * part_bytes(layer), to);
    }
    Status write(std::uint32_t layer, std::uint32_t page, std::span<const std::byte> from) override {
        return device_.write(layers_[layer - first_layer_], page * part_bytes(layer), from);
    }

private:
    std::size_t part_bytes(std::uint32_t layer) const { return shape_.layer_bytes(layer); }

    vulkan::Device& device_;
    KvShape shape_;
    std::uint32_t first_layer_;
    std::span<const Buffer> layers_;
};

struct VulkanBackend::Impl {
    VulkanBackendArgs args;
    VulkanWeights weights;
    RopeAngles angles;
    RunLayout layout;
    DeviceBuffers buffers;
    std::vector<std::byte> block;      // of the next run, in ordinary memory
    double run_seconds = 0;
    KernelCheck check;

    explicit Impl(const VulkanBackendArgs& a) : args(a), weights(*a.device, *a.file, *a.weights, a.first_layer) {}

    Status allocate(Buffer& to, std::uint64_t bytes, MemoryKind kind, const char* what) {
        auto b = args.device->allocate(std::max<std::uint64_t>(bytes, 16), kind, what);
        if (!b) return std::move(b).error();
        to = std::move(*b);
        return {};
    }
    RecordArgs record_args() const { return {args.device, args.hparams, args.weights, args.plan, &weights, &buffers, &layout, args.kv, args.exact, args.first_layer}; }
};

VulkanBackend::VulkanBackend(const VulkanBackendArgs& args) : impl_(std::make_unique<Impl>(args)) {}
VulkanBackend::~VulkanBackend() = default;

std::string VulkanBackend::name() const { return cat("vulkan/", impl_->args.device->info().name); }
bool VulkanBackend::supports(OpKind op, DType) const { return op != OpKind::embed && op != OpKind::hand_over; }

std::uint64_t VulkanBackend::buffer_bytes(const Hparams& h, const KvPlan& plan, std::uint32_t n_ctx, std::uint32_t max_bucket) {
    const std::uint64_t heads = std::uint64_t{h.max_head()} * h.head_dim, kv = std::uint64_t{h.max_head_kv()} * h.head_dim;
    const std::uint64_t row = 3 * std::uint64_t{h.n_embd} + 2 * heads + 2 * kv + 4 * std::uint64_t{h.max_ff()};
    const std::uint64_t slots = RunBlock::max_slots(std::max(max_bucket, 128u), plan.tiers);
    const std::uint64_t staging = plan.tiers.on ? plan.tiers.staging_tokens(max_bucket) / kernels::kLanes * h.max_head_kv() * plan.exact.head_bytes() : 0;
    return staging + 4 * (max_bucket * row + slots * (heads + 2 * std::uint64_t{h.max_head()}) + kOutputRows * std::uint64_t{h.n_vocab} + 2 * std::uint64_t{max_bucket} * h.n_embd) +
           2 * max_bucket * (std::uint64_t{n_ctx} / 16 * 4 + h.rope.n_rot * 4 + 256);
}

BackendMemory VulkanBackend::estimate() const {
    return {impl_->weights.bytes(), 0, 0};   // choose_offload() has asked buffer_bytes()
}

BackendMemory VulkanBackend::memory() const { return {impl_->weights.bytes(), 0, impl_->args.device->held_bytes() - impl_->weights.bytes()}; }

Status VulkanBackend::prepare(const PrepareProgress& progress) {
    Impl& i = *impl_;
    const Hparams& h = *i.args.hparams;
    const gguf::Tensor* factors = i.args.weights->get(Slot::rope_freqs, 0);
    i.angles = rope_angles(h.rope, factors ? read_vector(*factors) : std::vector<float>{});
    i.layout = {&i.angles, h.rope.n_rot, h.window, i.args.n_ctx, i.args.kv.page_tokens, wide_tokens(h, i.args.kv, i.args.first_layer), i.args.tiers};
    if (auto s = i.weights.load(*i.args.pool, progress); !s) return s;
    const Stopwatch clock;
    if (auto s = check_matrix_kernels(i.record_args(), i.args.max_bucket); !s) return s;   // before sizes: it may take kernels away
    if (auto s = check_other_kernels(i.record_args(), i.args.max_bucket, *i.args.table); !s) return s;
    i.check = {i.args.device->n_kernels(), clock.seconds()};
    DeviceBuffers& b = i.buffers;
    for (std::uint32_t l = i.args.first_layer; l < h.n_layer; ++l) {
        b.pages.emplace_back();
        if (auto s = i.allocate(b.pages.back(), std::uint64_t{i.args.n_pages} * i.args.kv.layer_bytes(l), MemoryKind::device, "the KV cache"); !s) return s;
        if (!i.args.tiers.on) continue;
        b.exact.emplace_back();
        if (auto s = i.allocate(b.exact.back(), std::uint64_t{i.args.n_exact_pages} * i.args.exact.layer_bytes(l), MemoryKind::device, "the KV cache's exact tier"); !s) return s;
    }
    const std::size_t staged = i.args.tiers.on ? i.args.tiers.staging_tokens(i.args.max_bucket) / kernels::kLanes : 0;
    if (staged > 0)
        if (auto s = i.allocate(b.staging, staged * h.max_head_kv() * i.args.exact.head_bytes(), MemoryKind::device, "staged pages of the KV cache"); !s) return s;
    const RecordSizes sizes = record_sizes(i.record_args(), i.args.max_bucket);
    if (auto s = i.allocate(b.arena, sizes.arena, MemoryKind::device, "activations"); !s) return s;
    if (auto s = i.allocate(b.partials, sizes.partials, MemoryKind::device, "partial results of attention"); !s) return s;
    if (auto s = i.allocate(b.logits, std::uint64_t{kOutputRows} * h.n_vocab * sizeof(float), MemoryKind::readback, "logits"); !s) return s;
    if (auto s = i.allocate(b.run, sizes.run, MemoryKind::upload, "numbers of a run"); !s) return s;
    if (auto s = i.allocate(b.pass, sizes.pass, MemoryKind::upload, "numbers of a run"); !s) return s;
    if (auto s = i.allocate(b.crossing, std::uint64_t{i.args.max_bucket} * h.n_embd * sizeof(float), MemoryKind::upload, "the residual stream"); !s) return s;
    i.block.resize(sizes.run);
    return {};
}

std::unique_ptr<DevicePages> VulkanBackend::pages() {
    return std::make_unique<VulkanPages>(*impl_->args.device, impl_->args.kv, impl_->args.first_layer, impl_->buffers.pages);
}
std::unique_ptr<DevicePages> VulkanBackend::exact_pages() {
    return std::make_unique<VulkanPages>(*impl_->args.device, impl_->args.exact, impl_->args.first_layer, impl_->buffers.exact);
}

double VulkanBackend::run_seconds() const { return impl_->run_seconds; }

KernelCheck VulkanBackend::check() const { return impl_->check; }

float* VulkanBackend::crossing() { return reinterpret_cast<float*>(impl_->buffers.crossing.host().data()); }

Result<std::unique_ptr<Executable>> VulkanBackend::compile(std::uint32_t bucket) { return record_plan(impl_->record_args(), bucket); }

Status VulkanBackend::run(Executable& executable, const RunArgs& args) {
    auto& e = static_cast<VulkanExecutable&>(executable);
    Impl& i = *impl_;
    // The CPU's backend, which always runs before, has refused what cannot be run.
    const std::size_t used = RunBlock::write(i.block, i.layout, e.bucket(), args, e.shapes);
    std::memcpy(i.buffers.run.host().data(), i.block.data(), used);
    if (auto s = i.args.device->run(e.body, "a step"); !s) return s;
    i.run_seconds = 0;
    for (const vulkan::Commands* c : e.body) i.run_seconds += i.args.device->seconds(*c);
    const std::uint32_t n_vocab = i.args.hparams->n_vocab;
    const auto* logits = reinterpret_cast<const float*>(i.buffers.logits.host().data());
    const auto take = [&](std::size_t first, std::size_t n) {
        for (std::size_t r = 0; r < n; ++r) std::memcpy(args.logits + (first + r) * args.logits_stride, logits + r * n_vocab, n_vocab * sizeof(float));
    };
    if (!e.output) {   // the body writes them
        take(0, args.outputs.size());
        return {};
    }
    for (std::size_t first = 0; first < args.outputs.size(); first += kOutputRows) {
        const std::size_t n = std::min<std::size_t>(kOutputRows, args.outputs.size() - first);
        write_pass(i.buffers.pass.host(), *e.output, static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(n));
        if (auto s = i.args.device->run(e.output->commands, "logits"); !s) return s;
        i.run_seconds += i.args.device->seconds(e.output->commands);
        take(first, n);
    }
    return {};
}

}  // namespace quern::engine
