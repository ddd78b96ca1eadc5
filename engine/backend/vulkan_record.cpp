// SPDX-License-Identifier: Apache-2.0
#include "engine/backend/vulkan_record.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>

#include "formats/text.h"

namespace quern::engine {
namespace {

using vulkan::AttentionShape;
using vulkan::Glu;
using vulkan::KernelPlan;
using vulkan::MatmulKind;
using Count = DispatchShape::Count;

/// Multiplications and additions of one submission, about: some drivers take a device that does not answer for 2 s for hung.
constexpr double kSubmitOps = 2e11;
constexpr std::uint32_t kFeatures = vulkan::kFloat16 | vulkan::kIntegerDot | vulkan::kCoopmat | vulkan::kSubgroupSize;

std::uint32_t words(std::size_t floats) { return static_cast<std::uint32_t>((floats + 3) / 4); }

/// A value's forms and how long each is alive, in ops.
struct ValuePlace {
    bool f32 = false, act = false;
    std::size_t f32_life = SIZE_MAX, act_life = SIZE_MAX;   // index into lives
};

class Recording {
public:
    Recording(const RecordArgs& args, std::uint32_t bucket) : a_(args), h_(*args.hparams), bucket_(bucket), places_(args.plan->values.size()) {
        find_forms();
        find_lives();
    }
    std::size_t arena_bytes() const { return arena_; }
    std::size_t offset(ValueId id) const { return lives_[places_[id].f32_life].offset; }
    Result<std::unique_ptr<Executable>> record();

private:
    const Value& value(ValueId id) const { return a_.plan->values[id]; }
    const gguf::Tensor& tensor(Slot s, std::uint32_t layer) const { return a_.shapes->matrix(s, layer); }
    std::uint32_t cols(ValueId id) const { return matmul_cols(*a_.plan, id, bucket_); }
    /// Whether the plan's last operation, the output matrix, is run some rows at a time.
    bool passes() const { return bucket_ > kOutputRows && a_.plan->ops.back().kind == OpKind::matmul; }
    MatmulKind kind(const Op& op, const MatmulPart& p) const {
        return matmul_kind(a_, tensor(p.weight, op.layer).type, p.weight, cols(op.in));
    }
    bool fused(const Op& op) const { return fuses_glu(a_, op, bucket_); }

    void find_forms();
    void find_lives();
    std::size_t live(std::size_t bytes, std::uint32_t op);
    void touch(ValueId id, std::uint32_t op);

    // Addresses and strides.
    std::uint64_t at(std::size_t life) const { return a_.buffers->arena.address() + lives_[life].offset; }
    std::uint64_t f32(ValueId id) const { return at(places_[id].f32_life); }
    std::uint64_t act(ValueId id) const { return at(places_[id].act_life); }
    std::uint32_t stride(ValueId id) const { return words(value(id).width) * 4; }
    std::uint32_t act_words(ValueId id) const { return static_cast<std::uint32_t>(kernels::ActLayout(value(id).width).bytes / 16); }
    std::uint64_t run() const { return a_.buffers->run.address() + RunBlock::kHeader; }
    std::uint64_t ml() const { return a_.buffers->partials.address() + std::uint64_t{RunBlock::max_slots(bucket_, a_.layout->tiers)} * h_.max_head() * h_.head_dim * sizeof(float); }
    Count rows(ValueId id) const { return value(id).rows == Rows::outputs ? Count::outputs : Count::tokens; }
    static vulkan::uint cols_from(Count c) { return c == Count::outputs ? QUERN_COLS_OUTPUTS : QUERN_COLS_TOKENS; }

    // Recording of one kernel; the first failure stays.
    template <class Push>
    void put(std::string_view module, std::span<const std::uint32_t> constants, const Push& push, DispatchShape shape, std::uint32_t subgroup = 0);
    template <class Push>
    void put(const KernelPlan& plan, const Push& push, Count columns) {
        put(plan.module, plan.constants, push, {Count::one, columns, plan.groups_x, plan.cols_per_group}, plan.required_subgroup);
    }
    void barrier() { now_->barrier(); }
    /// At the beginning and at the end of each recording: how long the device was at it.
    void note_time() {
        if (a_.device->has(vulkan::kTimestamps)) now_->timestamp();
    }
    Status begin();

    void record_op(const Op& op);
    void matmul(const Op& op);
    /// Where a product's results go, the run's header, and another place of the input's floats than its own, if it has one.
    struct Product {
        std::uint64_t y;
        std::uint32_t y_stride;
        std::uint64_t run, x = 0;
    };
    /// y (+)= W x for all parts of one matrix; with `up` y = activation(W x) * (W_up x).
    void multiply(const Product& product, const Op& op, const MatmulPart& p, const MatmulPart* up = nullptr);
    void matmul_glu(const Op& op);
    template <class Push> void set_pages(Push& p, std::uint32_t layer) const;
    void copy_pages(std::uint32_t layer, std::uint32_t list, Count count);
    void rope_store(const Op& op);
    void attention(const Op& op);
    void round(ValueId id);
    Result<OutputPass> output_pass();

    const RecordArgs& a_;
    const Hparams& h_;
    std::uint32_t bucket_;
    std::vector<ValuePlace> places_;
    std::vector<BufferLife> lives_;
    std::map<const Op*, std::array<std::size_t, 2>> temporary_;   // gate and up where they are not fused
    std::size_t tile_life_ = SIZE_MAX;                            // rows of an output pass
    std::size_t arena_ = 0;

    std::unique_ptr<VulkanExecutable> out_;
    vulkan::Commands* now_ = nullptr;
    const vulkan::Buffer* counts_ = nullptr;                      // where dispatches find their groups
    std::vector<DispatchShape>* shapes_ = nullptr;
    Status failed_;
};

void Recording::find_forms() {
    for (const Op& op : a_.plan->ops) {
        places_[op.out].f32 |= op.kind != OpKind::matmul && op.kind != OpKind::rope_store;
        if (op.n_parts == 0) {
            if (op.kind != OpKind::take_over) places_[op.in].f32 = true;
            if (op.kind == OpKind::rope_store) places_[op.in2].f32 = places_[op.in3].f32 = true;
        }
        for (std::uint32_t i = 0; i < op.n_parts; ++i) {
            (vulkan::takes_rounded(kind(op, op.parts[i])) ? places_[op.in].act : places_[op.in].f32) = true;
            if (op.kind == OpKind::matmul) places_[op.parts[i].out].f32 = true;
        }
    }
    places_[a_.plan->logits].f32 = false;   // in memory of its own
}

std::size_t Recording::live(std::size_t bytes, std::uint32_t op) {
    lives_.push_back({bytes, op, op});
    return lives_.size() - 1;
}

void Recording::touch(ValueId id, std::uint32_t op) {
    const auto extend = [&](std::size_t& life, std::size_t bytes) {
        if (life == SIZE_MAX) life = live(bytes * bucket_, op);
        lives_[life].last = op;
    };
    ValuePlace& p = places_[id];
    if (p.f32) extend(p.f32_life, stride(id) * sizeof(float));
    if (p.act) extend(p.act_life, std::size_t{act_words(id)} * 16);
}

void Recording::find_lives() {
    const std::vector<Op>& ops = a_.plan->ops;
    for (std::uint32_t i = 0; i < ops.size(); ++i) {
        const Op& op = ops[i];
        if (op.kind != OpKind::take_over) touch(op.in, i);
        if (op.kind == OpKind::rope_store) {
            touch(op.in2, i);
            touch(op.in3, i);
        } else if (op.kind == OpKind::matmul) {
            for (std::uint32_t p = 0; p < op.n_parts; ++p) touch(op.parts[p].out, i);
        } else {
            touch(op.out, i);
        }
        if (op.kind == OpKind::matmul_glu && !fused(op)) {
            const std::size_t bytes = std::size_t{stride(op.out)} * sizeof(float) * bucket_;
            temporary_[&op] = {live(bytes, i), live(bytes, i)};
        }
    }
    if (passes()) tile_life_ = live(std::size_t{kOutputRows} * stride(ops.back().in) * sizeof(float), static_cast<std::uint32_t>(ops.size() - 1));
    arena_ = place_buffers(lives_);
}

template <class Push>
void Recording::put(std::string_view module, std::span<const std::uint32_t> constants, const Push& push, DispatchShape shape, std::uint32_t subgroup) {
    if (!failed_) return;
    auto kernel = a_.device->kernel(module, constants, subgroup);
    if (!kernel) {
        failed_ = std::move(kernel).error();
        return;
    }
    if (bucket_ == 1 && shape.y == Count::tokens) shape = {shape.x, Count::one, shape.x_groups, 1};
    if (bucket_ == 1 && shape.x == Count::tokens) shape = {Count::one, shape.y, 1, shape.y_groups};
    if (shape.x == Count::one && shape.y == Count::one) return now_->dispatch(**kernel, push, {shape.x_groups, shape.y_groups, 1});
    const auto known = std::find(shapes_->begin(), shapes_->end(), shape);
    const std::size_t slot = static_cast<std::size_t>(known - shapes_->begin());
    if (known == shapes_->end()) shapes_->push_back(shape);
    now_->dispatch_indirect(**kernel, push, *counts_, slot * 16);
}

/// The rounded form of a value that was just made, where some matrix wants it.
void Recording::round(ValueId id) {
    if (!places_[id].act) return;
    barrier();
    vulkan::QuantizePush q{};
    q.x = f32(id); q.q = act(id); q.run = run();
    q.n = value(id).width; q.x_stride = stride(id) / 4; q.q_stride = act_words(id);
    q.cols_from = cols_from(rows(id));
    put(vulkan::plan_quantize(q.n), q, rows(id));
}

void Recording::multiply(const Product& product, const Op& op, const MatmulPart& p, const MatmulPart* up) {
    const DeviceMatrix& m = a_.weights->matrix(p.weight, op.layer);
    const MatmulKind k = kind(op, p);
    const bool rounded = vulkan::takes_rounded(k);
    const Glu glu = !up ? Glu::none : h_.arch->activation == Activation::geglu ? Glu::geglu : Glu::swiglu;
    for (std::size_t i = 0; i < m.parts.size(); ++i) {
        const DevicePanels& part = m.parts[i];
        const std::uint64_t first = std::uint64_t{part.first_row} * sizeof(float);
        vulkan::MatmulPush push{};
        push.w = part.address;
        if (up) push.w_up = a_.weights->matrix(up->weight, op.layer).parts[i].address;   // of one shape, so cut alike
        push.x = product.x ? product.x : rounded ? act(op.in) : f32(op.in);
        push.y = product.y + first;
        if (const std::uint64_t bias = a_.weights->vector(p.bias, op.layer)) push.bias = bias + first;
        push.run = product.run;
        push.panel_stride = static_cast<vulkan::uint>(m.panel_stride / 16);
        push.n_rows = part.n_rows; push.n_k = m.n_k;
        push.x_stride = rounded ? act_words(op.in) : stride(op.in) / 4;
        push.y_stride = product.y_stride;
        push.cols_from = cols_from(rows(op.in));
        push.add = p.add;
        put(vulkan::plan_matmul(k, m.type, part.n_rows, m.n_k, cols(op.in), glu, a_.device->info()), push, rows(op.in));
    }
}

void Recording::matmul(const Op& op) {
    for (std::uint32_t i = 0; i < op.n_parts; ++i) {
        const MatmulPart& p = op.parts[i];
        const bool logits = p.out == a_.plan->logits;
        multiply({logits ? a_.buffers->logits.address() : f32(p.out), logits ? value(p.out).width : stride(p.out), run()}, op, p);
    }
}

void Recording::matmul_glu(const Op& op) {
    const std::uint32_t row = stride(op.out);
    if (fused(op)) {
        multiply({f32(op.out), row, run()}, op, op.parts[0], &op.parts[1]);
        return round(op.out);
    }
    const auto& [gate, up] = temporary_.at(&op);
    const std::uint32_t width = value(op.out).width;
    const auto activation = h_.arch->activation == Activation::geglu ? vulkan::PairOp::geglu : vulkan::PairOp::swiglu;
    multiply({at(gate), row, run()}, op, op.parts[0]);
    multiply({at(up), row, run()}, op, op.parts[1]);
    barrier();
    put("pair", vulkan::pair_constants(activation), vulkan::PairPush{at(gate), at(up), f32(op.out), row, row, row, width},
        {rows(op.out), Count::one, 1, vulkan::row_pieces(width)});
    round(op.out);
}

/// The layer's first byte in each memory that pages lie in.
template <class Push>
void Recording::set_pages(Push& p, std::uint32_t layer) const {
    p.pages = a_.buffers->pages[layer - a_.first_layer].address();
    if (!a_.layout->tiers.on) return;
    p.exact = a_.buffers->exact[layer - a_.first_layer].address();
    p.staging = a_.buffers->staging.address();
}

void Recording::copy_pages(std::uint32_t layer, std::uint32_t list, Count count) {
    constexpr std::uint32_t kShares = 4;   // groups that share a page
    vulkan::CopyPagesPush p{};
    p.run = run();
    set_pages(p, layer);
    p.list = list;
    p.page_bytes = static_cast<vulkan::uint>(a_.exact.layer_bytes(layer));
    put("copy_pages", vulkan::kCopyPagesConstants, p, {count, Count::one, 1, kShares});
}

void Recording::rope_store(const Op& op) {
    const bool tiers = a_.layout->tiers.on;
    if (tiers && bucket_ > KvTiers::kSlack) {   // shorter chunks fit their ring
        copy_pages(op.layer, vulkan::kListStage, Count::stage);
        barrier();
    }
    const KvShape& to = tiers ? a_.exact : a_.kv;
    vulkan::RopeStorePush p{};
    p.run = run(); p.q = f32(op.in); p.k = f32(op.in2); p.v = f32(op.in3);
    p.q_norm = a_.weights->vector(Slot::attn_q_norm, op.layer); p.k_norm = a_.weights->vector(Slot::attn_k_norm, op.layer);
    set_pages(p, op.layer);
    p.q_stride = stride(op.in); p.k_stride = stride(op.in2); p.v_stride = stride(op.in3);
    p.n_head = h_.n_head[op.layer]; p.n_head_kv = h_.n_head_kv[op.layer];
    p.eps = h_.rms_eps;
    put("rope_store", vulkan::rope_store_constants(h_.head_dim, h_.rope.n_rot, h_.arch->rope_pairs == RopePairs::neox, to.format, to.page_tokens), p,
        {Count::tokens, Count::one, 1, p.n_head + p.n_head_kv});
    if (!tiers) return;
    barrier();
    vulkan::KvQuantizePush q{};
    q.run = run();
    set_pages(q, op.layer);
    q.list = vulkan::kListQuantize; q.n_head_kv = p.n_head_kv;
    put("kv_quantize", vulkan::kv_quantize_constants(h_.head_dim, a_.kv.format), q, {Count::quantize, Count::one, 1, p.n_head_kv});
    if (bucket_ > KvTiers::kSlack) copy_pages(op.layer, vulkan::kListKeep, Count::keep);
}

void Recording::attention(const Op& op) {
    const std::uint32_t n_head_kv = h_.n_head_kv[op.layer], n_rep = h_.n_head[op.layer] / n_head_kv;
    vulkan::AttentionPush p{};
    p.run = run(); p.q = f32(op.in);
    set_pages(p, op.layer);
    p.to = a_.buffers->partials.address(); p.ml = ml();
    p.q_stride = stride(op.in); p.n_head_kv = n_head_kv; p.n_rep = n_rep;
    p.scale = h_.attn_scale; p.softcap = h_.attn_softcap;
    for (std::uint32_t list = 0; list < (a_.layout->tiers.on ? 4u : 2u); ++list) {
        const bool wide = list % 2;
        if (wide && bucket_ == 1) continue;
        const KvShape& in = a_.layout->tiers.on && list < 2 ? a_.exact : a_.kv;
        const auto shape = AttentionShape::make(in.format, h_.head_dim, n_rep, in.page_tokens, wide);
        p.list = vulkan::kListSegments + list;
        p.reps = shape.reps;
        put("attention", shape.constants(), p, {static_cast<Count>(static_cast<std::uint32_t>(Count::segments) + list), Count::one, 1, n_head_kv * shape.rep_groups()});
    }
    barrier();
    vulkan::MergePush m{};
    m.run = run(); m.parts = p.to; m.ml = p.ml; m.sinks = a_.weights->vector(Slot::attn_sinks, op.layer); m.to = f32(op.out);
    m.list = vulkan::kListMerges; m.n_head = h_.n_head[op.layer]; m.to_stride = stride(op.out);
    put("attention_merge", vulkan::merge_constants(h_.head_dim), m, {Count::tokens, Count::one, 1, m.n_head});
    round(op.out);
}

void Recording::record_op(const Op& op) {
    switch (op.kind) {
        case OpKind::take_over: {
            const std::uint32_t n = value(op.out).width;
            put("gather", vulkan::kGatherConstants, vulkan::GatherPush{run(), a_.buffers->crossing.address(), f32(op.out), 0, n, stride(op.out), n},
                {Count::tokens, Count::one, 1, vulkan::row_pieces(n)});
            break;
        }
        case OpKind::rms_norm: {
            const vulkan::NormPush p{run(), f32(op.in), a_.weights->vector(op.weight, op.layer), f32(op.out), 0, stride(op.in), stride(op.out), value(op.in).width, h_.rms_eps, 0};
            put("rms_norm", vulkan::kNormConstants, p, {rows(op.in), Count::one, 1, 1});
            round(op.out);
            break;
        }
        case OpKind::gather: {
            const std::uint32_t n = value(op.out).width;
            put("gather", vulkan::kGatherConstants, vulkan::GatherPush{run(), f32(op.in), f32(op.out), vulkan::kListOutputs, stride(op.in), stride(op.out), n},
                {Count::outputs, Count::one, 1, vulkan::row_pieces(n)});
            round(op.out);
            break;
        }
        case OpKind::matmul: matmul(op); break;
        case OpKind::rope_store: rope_store(op); break;
        case OpKind::attention: attention(op); break;
        case OpKind::matmul_glu: matmul_glu(op); break;
        case OpKind::embed:
        case OpKind::hand_over: failed_ = Error{Errc::internal, "an operation of the CPU in a device's plan"}; break;
    }
    barrier();
}

Status Recording::begin() {
    auto c = a_.device->record();
    if (!c) return std::move(c).error();
    out_->commands.push_back(std::move(*c));
    now_ = &out_->commands.back();
    note_time();
    return {};
}

/// Some rows of the output matrix's input, then the matrix.
Result<OutputPass> Recording::output_pass() {
    auto c = a_.device->record();
    if (!c) return std::move(c).error();
    OutputPass pass{std::move(*c), {}};
    now_ = &pass.commands;
    note_time();
    counts_ = &a_.buffers->pass;
    shapes_ = &pass.shapes;
    const Op& op = a_.plan->ops.back();
    const std::uint64_t header = a_.buffers->pass.address() + RunBlock::kHeader, tile = at(tile_life_);
    const std::uint32_t n = value(op.in).width;
    put("gather", vulkan::kGatherConstants, vulkan::GatherPush{header, f32(op.in), tile, vulkan::kListOutputs, stride(op.in), stride(op.in), n},
        {Count::outputs, Count::one, 1, vulkan::row_pieces(n)});
    barrier();
    multiply({a_.buffers->logits.address(), value(a_.plan->logits).width, header, tile}, op, op.parts[0]);
    if (!failed_) return std::move(failed_).error();
    note_time();
    if (auto s = pass.commands.finish(); !s) return std::move(s).error();
    return pass;
}

Result<std::unique_ptr<Executable>> Recording::record() {
    if (arena_ > a_.buffers->arena.size()) return Error{Errc::internal, cat("a batch bucket of ", bucket_, " needs more than the arena's ", a_.buffers->arena.size(), " bytes")};
    out_ = std::make_unique<VulkanExecutable>(bucket_);
    counts_ = &a_.buffers->run;
    shapes_ = &out_->shapes;
    const std::size_t n_ops = a_.plan->ops.size() - passes();
    double ops = 0;
    for (std::size_t i = 0; i < n_ops && failed_; ++i) {
        const Op& op = a_.plan->ops[i];
        if (!now_)
            if (auto s = begin(); !s) return std::move(s).error();
        record_op(op);
        for (std::uint32_t p = 0; p < op.n_parts; ++p) ops += 2.0 * bucket_ * static_cast<double>(tensor(op.parts[p].weight, op.layer).n_elements());
        if (ops < kSubmitOps && i + 1 < n_ops) continue;
        note_time();
        if (auto s = now_->finish(); !s) return std::move(s).error();
        now_ = nullptr;
        ops = 0;
    }
    if (!failed_) return std::move(failed_).error();
    for (vulkan::Commands& c : out_->commands) out_->body.push_back(&c);
    if (passes()) {
        auto pass = output_pass();
        if (!pass) return std::move(pass).error();
        out_->output = std::move(*pass);
    }
    if (out_->shapes.size() > RunBlock::kMaxShapes) return Error{Errc::internal, cat("a device's plan has ", out_->shapes.size(), " kinds of dispatches, more than ", RunBlock::kMaxShapes)};
    return std::unique_ptr<Executable>(std::move(out_));
}

}  // namespace

void write_pass(std::span<std::byte> to, const OutputPass& pass, std::uint32_t first, std::uint32_t n) {
    for (std::size_t i = 0; i < pass.shapes.size(); ++i) {
        const DispatchShape& s = pass.shapes[i];
        const auto groups = [&](Count c, std::uint32_t constant, std::uint32_t each) { return c == Count::one ? constant : (n + each - 1) / each; };
        const std::uint32_t out[3] = {groups(s.x, s.x_groups, 1), groups(s.y, s.y_groups, s.y_groups), 1};
        std::memcpy(to.data() + i * 16, out, sizeof out);
    }
    vulkan::RunHeader h{};
    h.n_outputs = n;
    h.outputs = sizeof h / 4;
    std::memcpy(to.data() + RunBlock::kHeader, &h, sizeof h);
    std::uint32_t rows[kOutputRows];
    for (std::uint32_t i = 0; i < n; ++i) rows[i] = first + i;
    std::memcpy(to.data() + RunBlock::kHeader + sizeof h, rows, n * sizeof(std::uint32_t));
}

vulkan::MatmulKind matmul_kind(const RecordArgs& args, DType type, Slot weight, std::uint32_t max_cols) {
    std::uint32_t features = 0;
    for (std::uint32_t f = 1; f <= kFeatures; f <<= 1)
        if (f & kFeatures && args.device->has(static_cast<vulkan::Feature>(f))) features |= f;
    return vulkan::choose_matmul(type, max_cols, features, !wants_fine(weight));
}

std::uint32_t matmul_cols(const Plan& plan, ValueId in, std::uint32_t bucket) {
    return plan.values[in].rows == Rows::outputs && in == plan.ops.back().in ? std::min(bucket, kOutputRows) : bucket;
}

bool fuses_glu(const RecordArgs& args, const Op& op, std::uint32_t bucket) {
    const DType gate = args.shapes->matrix(op.parts[0].weight, op.layer).type, up = args.shapes->matrix(op.parts[1].weight, op.layer).type;
    return gate == up && vulkan::is_matvec(matmul_kind(args, gate, op.parts[0].weight, matmul_cols(*args.plan, op.in, bucket)));
}

RecordSizes record_sizes(const RecordArgs& args, std::uint32_t max_bucket) {
    RecordSizes out;
    for (const std::uint32_t bucket : {1u, std::min(max_bucket, kOutputRows), max_bucket}) out.arena = std::max(out.arena, Recording(args, bucket).arena_bytes());
    const std::uint32_t widest = std::max(max_bucket, 128u);   // max_slots() is largest there
    const std::size_t heads = args.hparams->max_head();
    out.partials = RunBlock::max_slots(widest, args.layout->tiers) * heads * (args.hparams->head_dim + 2) * sizeof(float);
    out.run = RunBlock::bytes(*args.layout, widest);
    out.pass = RunBlock::kHeader + sizeof(vulkan::RunHeader) + kOutputRows * sizeof(std::uint32_t);
    return out;
}

std::uint32_t wide_tokens(const Hparams& h, const KvShape& kv, std::uint32_t first_layer) {
    std::uint32_t n = UINT32_MAX;
    for (std::uint32_t l = first_layer; l < h.n_layer; ++l)
        n = std::min(n, AttentionShape::make(kv.format, h.head_dim, h.n_head[l] / h.n_head_kv[l], kv.page_tokens, true).tokens());
    return n;
}

Result<std::unique_ptr<Executable>> record_plan(const RecordArgs& args, std::uint32_t bucket) { return Recording(args, bucket).record(); }

std::size_t value_offset(const RecordArgs& args, std::uint32_t bucket, ValueId value) { return Recording(args, bucket).offset(value); }

}  // namespace quern::engine
