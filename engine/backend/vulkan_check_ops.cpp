// SPDX-License-Identifier: Apache-2.0
// The check of the kernels that read no matrix. Each operation is recorded as a plan of its own, on small buffers, so that what is
// checked is what record_plan() will record: kernels, constants, lists of work and all.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <tuple>

#include "engine/backend/vulkan_check.h"
#include "formats/text.h"

namespace quern::engine {
namespace {

using kernels::AttnArgs;
using vulkan::Buffer;
using vulkan::MemoryKind;

/// The check has a cache of its own: short, and with two tiers a short tail, so that few positions show every part of the rule.
constexpr std::uint32_t kContext = 512, kTail = 64, kWindow = 200;
/// A step somewhere in it. The long ones begin at a position with 95 exact ones before it, which is the most that there can be, and two
/// spans: so attention is cut, 49 tokens have to be staged, and a group of 32 is quantized that was there before.
struct Trial {
    std::uint32_t bucket, n;
    std::int32_t pos0;
    std::int32_t end() const { return pos0 + static_cast<std::int32_t>(n); }
};
constexpr std::int32_t kShort = 5, kLong = 287;
constexpr std::uint32_t kWide = 49, kWideBucket = 64;
constexpr std::uint32_t kAttended = 6;   // tokens of a step whose attention is compared

/// Of outputs of attention; values lie within +-1. Some hundred roundings of 2^-24, a half of K that is tipped over here and there; a
/// position too many or too few shows by 1e-3.
constexpr double kAttentionError = 1e-4;

/// What a buffer of pages holds.
struct Image {
    const Buffer* buffer;
    std::vector<std::byte> bytes;
    std::span<std::byte> page(std::uint32_t id, std::size_t page_bytes) { return std::span(bytes).subspan(id * page_bytes, page_bytes); }
};
struct Truth;
struct Held;

class OtherKernels {
public:
    OtherKernels(const RecordArgs& model, std::uint32_t max_bucket, const kernels::KernelTable& table)
        : model_(model), args_(model), h_(*model.hparams), table_(table), layout_(*model.layout), max_bucket_(max_bucket), wide_(std::min(max_bucket, kWideBucket)) {
        layout_.n_ctx = kContext;
        layout_.window = std::min(layout_.window, kWindow);
        if (layout_.tiers.on) layout_.tiers = KvTiers::make(kTail, kContext);
        plan_.values = model.plan->values;
        plan_.logits = model.plan->logits;
        args_.plan = &plan_;
        args_.buffers = &buffers_;
        args_.layout = &layout_;
    }
    Status run();

private:
    vulkan::Device& device() const { return *model_.device; }
    std::uint32_t width(ValueId id) const { return plan_.values[id].width; }
    std::uint32_t stride(ValueId id) const { return (width(id) + 3) / 4 * 4; }
    const KvTiers& tiers() const { return layout_.tiers; }
    const KvShape& exact_shape() const { return tiers().on ? model_.exact : model_.kv; }
    std::uint32_t ring_pages() const { return tiers().ring_tokens / kernels::kLanes; }
    Trial widest() const { return {wide_, std::min(wide_, kWide), kLong}; }

    Status allocate();
    /// What one of the plan's values holds, [trial.n][width].
    struct In { ValueId id; const std::vector<float>& rows; };
    Result<std::vector<float>> ask(const Op& op, const Trial& t, std::initializer_list<In> ins, ValueId out, std::uint32_t out_rows);

    Status check_rows(const Op& op);
    Status check_pair(const Op& op);
    Status check_layer(const Op& rope, const Op& attention, const Trial& t);
    void rotate(std::uint32_t layer, const Trial& t, float* q, float* k) const;
    std::vector<Held> held_pages(const Trial& t, Image& pages, Image& exact, Image& staging) const;
    Status fill_pages(const Trial& t, const Truth& truth, Image& pages, Image& exact, Image& staging);
    Status compare_pages(const Trial& t, const Truth& truth, std::uint32_t layer, Image& pages, Image& exact, Image& staging);
    double merged(const Trial& t, std::uint32_t n_head, std::uint32_t token, std::uint32_t head, std::uint32_t d, const std::vector<float>& sinks) const;

    const RecordArgs& model_;
    RecordArgs args_;                      // of the operation that is asked
    const Hparams& h_;
    const kernels::KernelTable& table_;
    RunLayout layout_;
    std::uint32_t max_bucket_, wide_;
    Plan plan_;
    DeviceBuffers buffers_;
    std::vector<std::byte> block_;
    std::vector<std::uint32_t> pages_, ring_;   // block tables: ids that count backwards, ring_ as ExactRing::table()
};

Status refuse(const vulkan::Device& device, std::string_view module, const std::string& what) { return check::refusal(device, check::wrong_result(module, what)); }

std::string not_this(double got, double want) { return cat(" is ", std::to_string(got), ", not ", std::to_string(want)); }

KvShape one_layer(KvShape s, std::uint32_t layer) {
    s.n_head_kv = {s.n_head_kv[layer]};
    return s;
}

Status OtherKernels::allocate() {
    std::size_t arena = 0, pages = 0, exact = 0;
    for (const Op& op : model_.plan->ops) {
        std::size_t floats = 0;
        for (const ValueId id : {op.in, op.in2, op.in3, op.out}) floats += stride(id) + 16;   // places are rounded up
        if (op.n_parts == 0) arena = std::max(arena, floats);
        if (op.kind == OpKind::rope_store) pages = std::max(pages, model_.kv.layer_bytes(op.layer));
        if (op.kind == OpKind::rope_store && tiers().on) exact = std::max(exact, model_.exact.layer_bytes(op.layer));
    }
    const std::uint32_t n = (kContext + model_.kv.page_tokens - 1) / model_.kv.page_tokens;
    for (std::uint32_t i = n; i-- > 0;) pages_.push_back(i);
    if (tiers().on) {
        ring_.push_back(ring_pages());
        for (std::uint32_t i = 0; i < 2 * ring_pages(); ++i) ring_.push_back(ring_pages() - 1 - i % ring_pages());
    }
    const auto take = [&](Buffer& to, std::size_t bytes, MemoryKind kind = MemoryKind::device) -> Status {
        auto b = check::buffer(device(), bytes, kind);
        if (!b) return std::move(b).error();
        to = std::move(*b);
        return {};
    };
    const std::size_t slots = std::max(RunBlock::max_slots(wide_, tiers()), RunBlock::max_slots(1, tiers()));
    block_.resize(std::max(RunBlock::bytes(layout_, wide_), RunBlock::bytes(layout_, 1)));
    buffers_.pages.resize(1);
    buffers_.exact.resize(1);
    if (auto s = take(buffers_.arena, arena * wide_ * sizeof(float)); !s) return s;
    if (auto s = take(buffers_.partials, slots * h_.max_head() * (h_.head_dim + 2) * sizeof(float)); !s) return s;
    if (auto s = take(buffers_.run, block_.size(), MemoryKind::upload); !s) return s;
    if (auto s = take(buffers_.crossing, std::size_t{wide_} * h_.n_embd * sizeof(float), MemoryKind::upload); !s) return s;
    if (auto s = take(buffers_.pages[0], n * pages); !s) return s;
    if (!tiers().on) return {};
    if (auto s = take(buffers_.exact[0], (ring_pages() + 1) * exact); !s) return s;
    return take(buffers_.staging, tiers().staging_tokens(wide_) / kernels::kLanes * exact);
}

Result<std::vector<float>> OtherKernels::ask(const Op& op, const Trial& t, std::initializer_list<In> ins, ValueId out, std::uint32_t out_rows) {
    plan_.ops = {op};
    args_.first_layer = op.layer;
    auto executable = record_plan(args_, t.bucket);
    if (!executable) return std::move(executable).error();
    auto& e = static_cast<VulkanExecutable&>(**executable);
    auto clear = device().record();
    if (!clear) return std::move(clear).error();
    check::poison(*clear, buffers_.arena);
    check::poison(*clear, buffers_.partials);
    if (auto s = clear->finish(); !s) return std::move(s).error();
    if (auto s = device().run(*clear, "the check of a kernel"); !s) return std::move(s).error();

    const auto row_bytes = [&](ValueId id, std::uint32_t r) { return value_offset(args_, t.bucket, id) + std::size_t{r} * stride(id) * sizeof(float); };
    for (const In& in : ins)
        for (std::uint32_t r = 0; r < t.n; ++r) {
            const auto row = std::as_bytes(std::span(in.rows).subspan(std::size_t{r} * width(in.id), width(in.id)));
            const bool crosses = op.kind == OpKind::take_over;
            if (auto s = device().write(crosses ? buffers_.crossing : buffers_.arena, crosses ? r * row.size() : row_bytes(in.id, r), row); !s) return std::move(s).error();
        }
    const std::vector<std::int32_t> tokens(t.n, 0);
    const SeqChunk chunk{pages_.data(), 0, t.n, t.pos0, ring_.data()};
    std::vector<std::uint32_t> outputs;
    for (std::uint32_t r = 0; r < out_rows; ++r) outputs.push_back(t.n - out_rows + r);   // the last ones
    RunArgs args;
    args.tokens = tokens;
    args.chunks = {&chunk, 1};
    args.outputs = outputs;
    const std::size_t used = RunBlock::write(block_, layout_, t.bucket, args, e.shapes);
    std::memcpy(buffers_.run.host().data(), block_.data(), used);
    if (auto s = device().run(e.body, "the check of a kernel"); !s) return std::move(s).error();
    std::vector<float> got(std::size_t{out_rows} * width(out));
    for (std::uint32_t r = 0; r < out_rows; ++r)
        if (auto s = device().read(buffers_.arena, row_bytes(out, r), std::as_writable_bytes(std::span(got).subspan(std::size_t{r} * width(out), width(out)))); !s) return std::move(s).error();
    return got;
}

/// take_over, gather, rms_norm.
Status OtherKernels::check_rows(const Op& op) {
    const Trial t = widest();
    const std::uint32_t n = width(op.in), skipped = op.kind == OpKind::gather ? t.n / 2 : 0, rows = t.n - skipped;
    const std::vector<float> x = check::numbers(std::size_t{t.n} * n, 2);
    auto got = ask(op, t, {{op.in, x}}, op.out, rows);
    if (!got) return std::move(got).error();
    const bool norm = op.kind == OpKind::rms_norm;
    const gguf::Tensor* weight = norm ? model_.shapes->get(op.weight, op.layer) : nullptr;
    const std::vector<float> w = weight ? read_vector(*weight) : std::vector<float>{};
    std::vector<float> want(n);
    for (std::uint32_t r = 0; r < rows; ++r) {
        const float* from = x.data() + std::size_t{skipped + r} * n;
        if (norm) table_.rms_norm(from, w.empty() ? nullptr : w.data(), h_.rms_eps, n, want.data());
        else std::copy_n(from, n, want.data());
        for (std::uint32_t i = 0; i < n; ++i) {
            const float is = (*got)[std::size_t{r} * n + i];
            if (!(std::abs(is - want[i]) <= (norm ? check::kFloatError * std::abs(static_cast<double>(want[i])) + 1e-30 : 0.0)))
                return refuse(device(), norm ? "rms_norm" : "gather", cat("value ", i, " of row ", r, " of ", quoted(plan_.values[op.out].name), not_this(is, want[i])));
        }
    }
    return {};
}

/// The activation of a gate and its product, where they are not part of a matrix kernel.
Status OtherKernels::check_pair(const Op& op) {
    const std::uint32_t n = width(op.out);
    const bool gelu = h_.arch->activation == Activation::geglu;
    std::vector<float> x = check::numbers(2 * std::size_t{n}, 3);
    for (std::uint32_t i = 0; i < n; ++i) x[i] *= 8;   // gates, as far as the activation bends
    auto memory = check::buffer(device(), 3 * std::size_t{stride(op.out)} * sizeof(float));
    auto commands = device().record();
    auto kernel = device().kernel("pair", vulkan::pair_constants(gelu ? vulkan::PairOp::geglu : vulkan::PairOp::swiglu));
    if (!memory) return std::move(memory).error();
    if (!commands) return std::move(commands).error();
    if (!kernel) return std::move(kernel).error();
    const std::size_t row = std::size_t{stride(op.out)} * sizeof(float);
    if (auto s = device().write(*memory, 0, std::as_bytes(std::span(x).first(n))); !s) return s;
    if (auto s = device().write(*memory, row, std::as_bytes(std::span(x).subspan(n))); !s) return s;
    commands->fill(*memory, 2 * row, row, 0x7fc00000u);
    commands->barrier();
    const std::uint64_t at = memory->address();
    commands->dispatch(**kernel, vulkan::PairPush{at, at + row, at + 2 * row, stride(op.out), stride(op.out), stride(op.out), n}, {1, vulkan::row_pieces(n)});
    if (auto s = commands->finish(); !s) return s;
    if (auto s = device().run(*commands, "the check of a kernel"); !s) return s;
    std::vector<float> got(n), want(n);
    if (auto s = device().read(*memory, 2 * row, std::as_writable_bytes(std::span(got))); !s) return s;
    (gelu ? table_.geglu : table_.swiglu)(x.data(), x.data() + n, n, want.data());
    for (std::uint32_t i = 0; i < n; ++i)   // where tanh is near -1, the gate's own rounding counts
        if (!(std::abs(got[i] - want[i]) <= check::kFloatError * std::abs(static_cast<double>(x[i]) * x[n + i]) + 1e-30))
            return refuse(device(), "pair", cat("value ", i, " of ", quoted(plan_.values[op.out].name), not_this(got[i], want[i])));
    return {};
}

// --- Attention: what is rotated and stored, what migrates, and what is made of it. ---

/// A sequence's keys and values in one layer, and what the CPU makes of them: exact pages in a line, with two tiers also quantized ones.
struct Truth {
    const kernels::KernelTable& table;
    KvShape exact_shape, old_shape;
    std::unique_ptr<PagePool> exact, old;
    std::vector<std::uint32_t> line;
    std::vector<float> k, v;               // [positions][KV heads][head_dim]
    std::vector<std::byte> scratch = std::vector<std::byte>(kernels::kAttnScratch + 64);

    std::uint32_t n_head_kv() const { return exact_shape.n_head_kv[0]; }
    std::size_t row() const { return std::size_t{n_head_kv()} * exact_shape.head_dim; }
    kernels::KvHeadView view(std::uint32_t head) const { return exact->view(0, head, line.data()); }
    std::span<std::byte> page(std::uint32_t i) const { return exact->memory().subspan(i * exact_shape.layer_bytes(0), exact_shape.layer_bytes(0)); }
    std::span<std::byte> old_page(std::uint32_t i) const { return old->memory().subspan(i * old_shape.layer_bytes(0), old_shape.layer_bytes(0)); }

    void store(std::int32_t first, std::int32_t end) {
        const std::uint32_t dim = exact_shape.head_dim;
        for (std::uint32_t hd = 0; hd < n_head_kv(); ++hd) {
            const std::size_t at = static_cast<std::size_t>(first) * row() + std::size_t{hd} * dim;
            table.kv_store[static_cast<int>(exact_shape.format)]({view(hd), k.data() + at, v.data() + at, row(), row(), static_cast<std::uint32_t>(end - first), first});
        }
    }
    void quantize(std::int32_t from, std::int32_t to) {
        for (std::int32_t at = from; at < to; at += static_cast<std::int32_t>(KvTiers::kBatch))
            for (std::uint32_t hd = 0; hd < n_head_kv(); ++hd) {
                const std::uint32_t page = static_cast<std::uint32_t>(at) / kernels::kLanes;
                const std::uint32_t pages[] = {at == 0 ? page + 1 : page, page + 1};   // the first positions take no part (vulkan_run.cpp)
                table.kv_quantize[static_cast<int>(old_shape.format) - kernels::kKvExactFormats]({exact->view(0, hd, pages), old->view(0, hd, line.data()), 0, at});
            }
    }

    /// Attention of one token's heads that share a KV head, by the parts that the CPU backend makes: [n_rep][head_dim].
    std::vector<float> attend(const RunLayout& l, AttnArgs a, std::uint32_t head_kv, const float* sinks) {
        const std::uint32_t dim = exact_shape.head_dim;
        const std::int32_t span = kernels::kAttnSpan, window = static_cast<std::int32_t>(l.window), first_seen = KvTiers::kSink;
        const std::int32_t border = l.tiers.on ? l.tiers.boundary(a.pos0) : 0, least = window ? std::max(0, a.pos0 + 1 - window) : 0;
        std::vector<float> sum(std::size_t{a.n_rep} * dim), part(sum), ml(2 * std::size_t{a.n_rep}), part_ml(ml);
        bool any = false;
        const auto add = [&](bool quantized, std::int32_t begin, std::int32_t end) {
            a.kv = quantized ? old->view(0, head_kv, line.data()) : view(head_kv);
            a.begin = begin; a.end = end; a.first = quantized ? first_seen : 0;
            a.out = any ? part.data() : sum.data();
            a.ml = any ? part_ml.data() : ml.data();
            table.attention[static_cast<int>((quantized ? old_shape : exact_shape).format)](a);
            if (any) table.attn_merge(sum.data(), ml.data(), part.data(), part_ml.data(), a.n_rep, dim, dim);
            any = true;
        };
        a.window = window;
        a.out_stride = dim;
        a.scratch = scratch.data() + (64 - reinterpret_cast<std::uintptr_t>(scratch.data()) % 64);
        if (border > 0 && least < first_seen) add(false, 0, first_seen);
        for (std::int32_t at = least / span * span; at < border; at += span) add(true, at, std::min(at + span, border));
        for (std::int32_t at = std::max(least, border) / span * span; at <= a.pos0; at += span) add(false, std::max(at, border), std::min(at + span, a.pos0 + 1));
        std::vector<float> out(sum.size());
        table.attn_finish(sum.data(), ml.data(), a.n_rep, dim, dim, out.data(), dim, sinks);
        return out;
    }
};

Result<Truth> make_truth(const kernels::KernelTable& table, const KvShape& exact, const KvShape& old, bool tiers, std::uint32_t layer, std::int32_t end) {
    Truth t{table, one_layer(exact, layer), one_layer(old, layer), nullptr, nullptr, {}, {}, {}};
    auto pool = PagePool::create(t.exact_shape, static_cast<std::uint64_t>(end));
    if (!pool) return std::move(pool).error();
    t.exact = std::move(*pool);
    if (tiers) {
        auto old_pool = PagePool::create(t.old_shape, static_cast<std::uint64_t>(end));
        if (!old_pool) return std::move(old_pool).error();
        t.old = std::move(*old_pool);
        std::fill(t.old->memory().begin(), t.old->memory().end(), std::byte{0xff});   // as the device's: what nobody writes is equal
    }
    for (std::uint32_t i = 0; i < t.exact->n_pages(); ++i) t.line.push_back(i);
    t.k = check::numbers(static_cast<std::size_t>(end) * t.row(), 4);
    t.v = check::numbers(static_cast<std::size_t>(end) * t.row(), 5);
    return t;
}

/// Positions [first, end) of a page as they should be; pos: the first that is not, and how.
std::string compare_page(const Truth& t, std::uint32_t index, std::span<const std::byte> is, std::int32_t first, std::int32_t end, std::int32_t& pos) {
    const KvShape& s = t.exact_shape;
    const std::size_t n = s.head_bytes() / s.element_bytes(), pitch = s.v_pitch();
    const bool half = s.format == kernels::KvFormat::F16;
    const auto decode = info(half ? DType::F16 : DType::F32).decode;
    std::vector<float> got(n), want(n);
    for (std::uint32_t hd = 0; hd < t.n_head_kv(); ++hd) {
        decode(is.data() + hd * s.head_bytes(), got.data(), n);
        decode(t.page(index).data() + hd * s.head_bytes(), want.data(), n);
        for (std::uint32_t slot = 0; slot < s.page_tokens; ++slot) {
            pos = static_cast<std::int32_t>(index * s.page_tokens + slot);
            if (pos < first || pos >= end) continue;
            const auto k_at = [&](std::uint32_t d) { return (std::size_t{slot / 16} * s.head_dim + d) * 16 + slot % 16; };
            double size = 0;   // of the key: a rotation mixes its channels, a norm all of them
            for (std::uint32_t d = 0; d < s.head_dim; ++d) size = std::max(size, std::abs(static_cast<double>(want[k_at(d)])));
            const auto differs = [&](std::size_t i) {   // the last bit of a float can tip a half over to the next one
                return !(std::abs(got[i] - want[i]) <= (half ? 0x1p-10 * std::abs(static_cast<double>(want[i])) + 0x1p-24 : 0.0) + check::kFloatError * size);
            };
            for (std::uint32_t d = 0; d < s.head_dim; ++d) {
                const std::size_t k = k_at(d), v = std::size_t{s.page_tokens} * s.head_dim + slot * pitch + d;
                for (const std::size_t i : {k, v})
                    if (differs(i)) return cat(i == k ? "key" : "value", " of position ", pos, ", head ", hd, ", channel ", d, not_this(got[i], want[i]));
            }
        }
    }
    return "";
}

/// A page of a device's memory and what it should hold: positions [first, end) of page `line` of the truth.
struct Held {
    Image* image;
    std::uint32_t id, line;
    std::int32_t first, end;
    bool copied;   // by copy_pages, even what is new
};

std::vector<Held> OtherKernels::held_pages(const Trial& t, Image& pages, Image& exact, Image& staging) const {
    const auto page = static_cast<std::int32_t>(exact_shape().page_tokens), end = t.end();
    std::vector<Held> out;
    if (!tiers().on) {
        for (std::int32_t at = 0; at < end; at += page) out.push_back({&pages, pages_[static_cast<std::size_t>(at / page)], static_cast<std::uint32_t>(at / page), 0, end, false});
        return out;
    }
    const auto add = [&](Image& image, std::int32_t from, std::int32_t first_page, bool copied) {
        for (std::int32_t at = from; at < end; at += page) {
            const auto line = static_cast<std::uint32_t>(at / page);
            out.push_back({&image, &image == &exact ? ring_[1 + line % ring_pages()] : line - static_cast<std::uint32_t>(first_page), line, from, end, copied});
        }
    };
    const std::int32_t from = tiers().window(t.pos0), ring = static_cast<std::int32_t>(tiers().ring_tokens);
    out.push_back({&exact, ring_[0], 0, 0, std::min(static_cast<std::int32_t>(KvTiers::kSink), end), false});
    if (tiers().fits_ring(t.pos0, t.n)) {
        add(exact, from, 0, false);
        return out;
    }
    add(staging, from, from / page, false);
    add(exact, std::max(from, (end - ring + page - 1) / page * page), 0, true);
    return out;
}

/// What the pages hold before the step; the rest is NaN.
Status OtherKernels::fill_pages(const Trial& t, const Truth& truth, Image& pages, Image& exact, Image& staging) {
    const auto put = [](Image& to, std::uint32_t id, std::span<const std::byte> from) { std::copy(from.begin(), from.end(), to.page(id, from.size()).begin()); };
    for (auto [image, buffer] : {std::pair(&pages, &buffers_.pages[0]), std::pair(&exact, &buffers_.exact[0]), std::pair(&staging, &buffers_.staging)}) {
        image->buffer = buffer;
        image->bytes.assign(buffer->size(), std::byte{0xff});
    }
    Trial before = t;   // as if nothing came after it
    before.n = 0;
    for (const Held& h : held_pages(before, pages, exact, staging)) put(*h.image, h.id, truth.page(h.line));
    for (std::int32_t at = 0; tiers().on && at < tiers().window(t.pos0); at += KvTiers::kBatch) {
        const auto group = static_cast<std::uint32_t>(at) / KvTiers::kBatch;
        put(pages, pages_[group], truth.old_page(group));
    }
    for (Image* image : {&pages, &exact, &staging})
        if (!image->bytes.empty())
            if (auto s = device().write(*image->buffer, 0, image->bytes); !s) return s;
    return {};
}

/// After the step: the first page that is not as it should be.
Status OtherKernels::compare_pages(const Trial& t, const Truth& truth, std::uint32_t layer, Image& pages, Image& exact, Image& staging) {
    for (Image* image : {&pages, &exact, &staging})
        if (!image->bytes.empty())
            if (auto s = device().read(*image->buffer, 0, image->bytes); !s) return s;
    const std::size_t bytes = truth.exact_shape.layer_bytes(0);
    for (const Held& h : held_pages(t, pages, exact, staging)) {
        std::int32_t pos = 0;
        const std::string wrong = compare_page(truth, h.line, h.image->page(h.id, bytes), h.first, h.end, pos);
        const bool copied = h.copied || (h.image == &staging && pos < t.pos0);
        if (!wrong.empty()) return refuse(device(), copied ? "copy_pages" : "rope_store", cat(wrong, " (layer ", layer, ")"));
    }
    if (!tiers().on) return {};
    for (std::int32_t at = 0; at < tiers().window(t.end()); at += KvTiers::kBatch) {
        const auto group = static_cast<std::uint32_t>(at) / KvTiers::kBatch;
        const auto want = truth.old_page(group), is = pages.page(pages_[group], want.size());   // the kernel is made to give the CPU's bits
        const auto [w, i] = std::mismatch(want.begin(), want.end(), is.begin());
        if (w == want.end()) continue;
        const auto byte = static_cast<std::size_t>(w - want.begin());
        return refuse(device(), "kv_quantize", cat("byte ", byte % truth.old_shape.head_bytes(), " of head ", byte / truth.old_shape.head_bytes(), " of positions ", at, " to ",
                                                   at + static_cast<std::int32_t>(KvTiers::kBatch) - 1, " is ", static_cast<int>(*i), ", not ", static_cast<int>(*w), " (layer ", layer, ")"));
    }
    return {};
}

Status OtherKernels::check_layer(const Op& rope, const Op& attention, const Trial& t) {
    const std::uint32_t layer = rope.layer, dim = h_.head_dim, n_head = h_.n_head[layer], n_head_kv = h_.n_head_kv[layer];
    auto made = make_truth(table_, exact_shape(), model_.kv, tiers().on, layer, t.end());
    if (!made) return std::move(made).error();
    Truth& truth = *made;
    truth.store(0, t.pos0);
    if (tiers().on) truth.quantize(0, tiers().window(t.pos0));
    Image pages{}, exact{}, staging{};
    if (auto s = fill_pages(t, truth, pages, exact, staging); !s) return s;

    const std::size_t kv_row = truth.row(), first = static_cast<std::size_t>(t.pos0) * kv_row;
    std::vector<float> q = check::numbers(std::size_t{t.n} * n_head * dim, 6);
    for (float& x : q) x *= 4;   // so that some positions weigh much more than others
    const std::vector<float> q_in = q, k_in(truth.k.begin() + static_cast<std::ptrdiff_t>(first), truth.k.end()), v_in(truth.v.begin() + static_cast<std::ptrdiff_t>(first), truth.v.end());
    rotate(layer, t, q.data(), truth.k.data() + first);
    truth.store(t.pos0, t.end());
    if (tiers().on) truth.quantize(tiers().window(t.pos0), tiers().window(t.end()));
    auto got = ask(rope, t, {{rope.in, q_in}, {rope.in2, k_in}, {rope.in3, v_in}}, rope.in, t.n);
    if (!got) return std::move(got).error();
    for (std::size_t i = 0; i < q.size(); ++i) {
        const std::size_t head = i / dim * dim;
        double size = 0;
        for (std::uint32_t d = 0; d < dim; ++d) size = std::max(size, std::abs(static_cast<double>(q[head + d])));
        if (!(std::abs((*got)[i] - q[i]) <= check::kFloatError * size))
            return refuse(device(), "rope_store", cat("query at position ", t.pos0 + static_cast<std::int32_t>(i / dim / n_head), ", head ", i / dim % n_head, ", channel ", i % dim, " of layer ", layer, not_this((*got)[i], q[i])));
    }
    if (auto s = compare_pages(t, truth, layer, pages, exact, staging); !s) return s;

    got = ask(attention, t, {{attention.in, q}}, attention.out, t.n);
    if (!got) return std::move(got).error();
    const gguf::Tensor* tensor = model_.shapes->get(Slot::attn_sinks, layer);
    const std::vector<float> sinks = tensor ? read_vector(*tensor) : std::vector<float>{};
    for (std::uint32_t j = 0; j < std::min(t.n, kAttended); ++j) {
        const std::uint32_t token = t.n <= kAttended ? j : (t.n - 1) * j / (kAttended - 1);
        for (std::uint32_t head_kv = 0; head_kv < n_head_kv; ++head_kv) {
            AttnArgs a{};
            a.n_tokens = 1; a.n_rep = n_head / n_head_kv;
            a.q = q.data() + (std::size_t{token} * n_head + std::size_t{head_kv} * a.n_rep) * dim;
            a.q_stride = std::size_t{n_head} * dim;
            a.pos0 = t.pos0 + static_cast<std::int32_t>(token);
            a.scale = h_.attn_scale; a.softcap = h_.attn_softcap;
            const std::vector<float> want = truth.attend(layout_, a, head_kv, sinks.empty() ? nullptr : sinks.data() + head_kv * a.n_rep);
            const std::uint32_t head0 = head_kv * a.n_rep;
            for (std::size_t i = 0; i < want.size(); ++i) {
                const double is = (*got)[(std::size_t{token} * n_head + head0) * dim + i];
                if (std::abs(is - want[i]) <= kAttentionError) continue;
                const std::uint32_t head = head0 + static_cast<std::uint32_t>(i / dim), d = static_cast<std::uint32_t>(i % dim);
                const bool merge = std::abs(merged(t, n_head, token, head, d, sinks) - want[i]) <= kAttentionError;
                return refuse(device(), merge ? "attention_merge" : "attention", cat("token at position ", a.pos0, ", head ", head, ", channel ", d, " of layer ", layer, not_this(is, want[i])));
            }
        }
    }
    return {};
}

/// As the CPU backend does, in place: the new tokens' queries and keys.
void OtherKernels::rotate(std::uint32_t layer, const Trial& t, float* q, float* k) const {
    const auto turn = h_.arch->rope_pairs == RopePairs::neox ? table_.rope_neox : table_.rope_norm;
    std::vector<float> angles(h_.rope.n_rot);
    for (std::uint32_t i = 0; i < t.n; ++i) {
        layout_.angles->table(t.pos0 + static_cast<std::int32_t>(i), angles.data());
        for (const auto& [rows, heads, slot] : {std::tuple(q, h_.n_head[layer], Slot::attn_q_norm), std::tuple(k, h_.n_head_kv[layer], Slot::attn_k_norm)}) {
            float* x = rows + std::size_t{i} * heads * h_.head_dim;
            if (const gguf::Tensor* tensor = model_.shapes->get(slot, layer)) {
                const std::vector<float> w = read_vector(*tensor);
                for (std::uint32_t hd = 0; hd < heads; ++hd) table_.rms_norm(x + std::size_t{hd} * h_.head_dim, w.data(), h_.rms_eps, h_.head_dim, x + std::size_t{hd} * h_.head_dim);
            }
            turn(x, heads, h_.head_dim, h_.rope.n_rot, angles.data());
        }
    }
}

/// What the merge should have made of the partials that the device has now; NaN where they cannot be read.
double OtherKernels::merged(const Trial& t, std::uint32_t n_head, std::uint32_t token, std::uint32_t head, std::uint32_t d, const std::vector<float>& sinks) const {
    vulkan::RunHeader header;
    vulkan::AttnMerge list;
    std::memcpy(&header, block_.data() + RunBlock::kHeader, sizeof header);
    std::memcpy(&list, block_.data() + RunBlock::kHeader + std::size_t{header.merges} * 4 + token * sizeof list, sizeof list);
    const std::size_t ml_at = std::size_t{RunBlock::max_slots(t.bucket, tiers())} * h_.max_head() * h_.head_dim;
    double most = sinks.empty() ? -INFINITY : sinks[head], sum = 0, weights = 0;
    std::vector<float> parts(buffers_.partials.size() / sizeof(float));
    if (!device().read(buffers_.partials, 0, std::as_writable_bytes(std::span(parts)))) return NAN;
    const auto row = [&](std::uint32_t i) { return (std::size_t{list.slot} + std::size_t{i} * list.stride) * n_head + head; };
    for (std::uint32_t i = 0; i < list.n; ++i) most = std::max(most, static_cast<double>(parts[ml_at + 2 * row(i)]));
    if (!sinks.empty()) weights = std::exp(sinks[head] - most);
    for (std::uint32_t i = 0; i < list.n; ++i) {
        const double w = std::exp(parts[ml_at + 2 * row(i)] - most);
        sum += w * parts[row(i) * h_.head_dim + d];
        weights += w * parts[ml_at + 2 * row(i) + 1];
    }
    return sum / weights;
}

Status OtherKernels::run() {
    if (auto s = allocate(); !s) return s;
    std::set<OpKind> rows;
    std::set<std::tuple<std::uint32_t, std::uint32_t>> layers;
    const Op* rope = nullptr;
    bool pair = false;
    for (const Op& op : model_.plan->ops) {
        Status s;
        const bool is_rows = op.kind == OpKind::take_over || op.kind == OpKind::gather || op.kind == OpKind::rms_norm;
        if (is_rows && rows.insert(op.kind).second) s = check_rows(op);
        if (op.kind == OpKind::rope_store) rope = &op;
        if (op.kind == OpKind::attention && layers.emplace(h_.n_head[op.layer], h_.n_head_kv[op.layer]).second)
            for (const Trial& t : {Trial{1, 1, kShort}, Trial{1, 1, kLong}, widest()})
                if (s) s = check_layer(*rope, op, t);
        if (op.kind == OpKind::matmul_glu && !pair && !fuses_glu(model_, op, max_bucket_)) {
            pair = true;
            s = check_pair(op);
        }
        if (!s) return s;
    }
    return {};
}
}  // namespace

Status check_other_kernels(const RecordArgs& args, std::uint32_t max_bucket, const kernels::KernelTable& table) { return OtherKernels(args, max_bucket, table).run(); }

}  // namespace quern::engine
