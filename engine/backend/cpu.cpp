// SPDX-License-Identifier: Apache-2.0
#include "engine/backend/cpu.h"

#include <algorithm>
#include <numeric>
#include <optional>

#include "engine/backend/cpu_steps.h"

namespace quern::engine {
namespace {

std::size_t pad64(std::size_t n) { return (n + 63) / 64 * 64; }
/// From one row of floats to the next. Rows a multiple of 4096 bytes apart would all share a set of the L1 cache.
std::size_t float_row_bytes(std::size_t width) {
    const std::size_t n = pad64(width * sizeof(float));
    return n % 4096 ? n : n + 64;
}

constexpr ValueId kNone = 0xffff;
/// Values that a step touches, to be turned into pointers once their places are known.
struct StepValues {
    ValueId in = kNone, in2 = kNone, in3 = kNone, out = kNone, part_out[3] = {kNone, kNone, kNone};
    const Op* op = nullptr;   // the step's origin
};

/// Which forms of a value are wanted, and where they live.
struct ValueState {
    bool f32 = false, act = false, fine = false;
    std::optional<std::size_t> f32_buffer, act_buffer;   // index into Lowered::buffers
};

class CpuExecutable final : public Executable {
public:
    CpuExecutable(std::uint32_t bucket, std::vector<Step> steps) : bucket_(bucket), steps_(std::move(steps)) {}
    std::uint32_t bucket() const override { return bucket_; }
    const std::vector<Step>& steps() const { return steps_; }

private:
    std::uint32_t bucket_;
    std::vector<Step> steps_;
};

}  // namespace

/// Steps without pointers into the arena, and the buffers they need.
struct CpuBackend::Lowered {
    const CpuBackend& b;
    std::uint32_t bucket;
    std::vector<Step> steps;
    std::vector<StepValues> values;
    std::vector<ValueState> state;
    std::vector<BufferLife> buffers;
    std::optional<std::size_t> rope_buffer, partial_buffer, staging_buffer;
    std::size_t arena = 0;

    Lowered(const CpuBackend& backend, std::uint32_t n) : b(backend), bucket(n), state(backend.args_.plan->values.size()) {}

    const Hparams& h() const { return *b.args_.hparams; }
    const Value& value(ValueId id) const { return b.args_.plan->values[id]; }
    DType weight_type(Slot s, std::uint32_t layer) const {
        return b.args_.weights->matrix(s, layer).type;
    }

    Step& add(const StepKind& kind, StepValues v, const Op& op) {
        Step s;
        s.fn = kind.fn; s.count = kind.count;
        s.table = b.args_.table;
        s.layer = op.layer;
        s.output_rows = v.out != kNone && value(v.out).rows == Rows::outputs;
        if (v.out != kNone) s.out.width = value(v.out).width;
        steps.push_back(s);
        v.op = &op;
        values.push_back(v);
        return steps.back();
    }

    void find_forms() {
        for (const Op& op : b.args_.plan->ops) {
            if (op.n_parts == 0) {
                state[op.in].f32 = true;
                if (op.kind == OpKind::rope_store) state[op.in2].f32 = state[op.in3].f32 = true;
                if (op.kind == OpKind::embed) state[op.out].f32 = true;
                if (op.kind == OpKind::attention) state[op.out].f32 |= !rounds_in_parts(group_width(op.layer));
                continue;
            }
            for (std::uint32_t i = 0; i < op.n_parts; ++i) {
                const bool rounded = !is_float(weight_type(op.parts[i].weight, op.layer));
                (rounded ? state[op.in].act : state[op.in].f32) = true;
                state[op.in].fine |= rounded && wants_fine(op.parts[i].weight);
                if (op.kind == OpKind::matmul) state[op.parts[i].out].f32 = true;
            }
        }
        state[b.args_.plan->logits].f32 = false;   // written where the caller wants it
    }

    void lower_op(const Op& op) {
        StepValues v;
        v.in = op.in; v.out = op.out;
        switch (op.kind) {
            case OpKind::embed: {
                v.in = kNone;
                Step& s = add(kStepEmbed, v, op);
                s.mapped_embedding = b.weights_.mapped_embedding();
                StepValues rope;
                Step& r = add(kStepRopeTable, rope, op);
                r.angles = &b.angles_;
                r.n_rot = h().rope.n_rot;
                break;
            }
            case OpKind::rms_norm: {
                Step& s = add(kStepNorm, v, op);
                s.eps = h().rms_eps;
                break;
            }
            case OpKind::gather: add(kStepGather, v, op); break;
            case OpKind::matmul: lower_matmul(op); break;
            case OpKind::rope_store: {
                v.in2 = op.in2; v.in3 = op.in3; v.out = kNone;
                if (staging_bytes() > 0) set_heads(add(kStepStage, StepValues{}, op));
                Step& s = add(kStepRopeStore, v, op);
                s.eps = h().rms_eps;
                s.pairs = h().arch->rope_pairs;
                set_heads(s);
                if (b.args_.tiers.on) set_heads(add(kStepMigrate, StepValues{}, op));
                break;
            }
            case OpKind::attention: lower_attention(op); break;
            case OpKind::matmul_glu: lower_matmul_glu(op); break;
            case OpKind::hand_over:
                v.out = kNone;
                add(kStepHandOver, v, op);
                break;
            case OpKind::take_over: break;   // supports() says no
        }
    }

    /// Values that one KV head's group of heads makes.
    std::uint32_t group_width(std::uint32_t layer) const { return h().n_head[layer] / h().n_head_kv[layer] * h().head_dim; }

    /// Spans of the longest sequence; with two tiers also the first positions, and a span that their border cuts.
    std::uint32_t max_parts() const { return b.args_.n_ctx / kernels::kAttnSpan + 1 + (b.args_.tiers.on ? 2 : 0); }

    /// One layer's pages for the chunks of a batch that their rings do not take.
    std::size_t staging_bytes() const {
        KvShape shape;   // F16
        shape.head_dim = h().head_dim;
        const std::uint32_t heads = *std::max_element(h().n_head_kv.begin(), h().n_head_kv.end());
        return b.args_.tiers.on ? b.args_.tiers.staging_tokens(bucket) / shape.page_tokens * heads * shape.head_bytes() : 0;
    }

    void set_heads(Step& s) const {
        s.n_head = h().n_head[s.layer]; s.n_head_kv = h().n_head_kv[s.layer];
        s.head_dim = h().head_dim; s.n_rot = h().rope.n_rot;
        s.n_heads_before = std::accumulate(h().n_head_kv.begin(), h().n_head_kv.begin() + s.layer, 0u);
        s.window = h().window; s.attn_scale = h().attn_scale; s.softcap = h().attn_softcap;
        s.pages = b.args_.pages;
        s.exact = b.args_.exact;
        s.tiers = b.args_.tiers;
        s.staging_pages = b.staging_pages_.data();
        s.max_spans = max_parts();
    }

    void lower_attention(const Op& op) {
        StepValues v;
        v.in = op.in;
        if (bucket > 1 || b.args_.max_bucket == 1) set_heads(add(kStepObserve, v, op));   // nothing is observed in decode
        v.out = op.out;
        if (bucket == 1) {
            set_heads(add(kStepAttentionSplit, v, op));
            set_heads(add(kStepAttentionMerge, v, op));
        } else {
            set_heads(add(kStepAttention, v, op));
        }
        if (state[op.out].act && !rounds_in_parts(group_width(op.layer))) {
            v.in = op.out;
            add(kStepRound, v, op);
        }
    }

    void lower_matmul(const Op& op) {
        StepValues v;
        v.in = op.in;
        for (std::uint32_t i = 0; i < op.n_parts; ++i) v.part_out[i] = op.parts[i].out;
        Step& s = add(kStepMatmul, v, op);
        s.output_rows = value(op.in).rows == Rows::outputs;
        // About eight units a thread: enough to even out threads of unequal speed, few enough to be cheap to hand out.
        const std::uint32_t per = std::clamp((set_parts(s, op) / (b.args_.pool->size() * 8) + 1) / 2 * 2, 2u, 64u);
        for (std::uint32_t i = 0; i < op.n_parts; ++i) s.parts[i].panels_per_unit = per;
    }

    void lower_matmul_glu(const Op& op) {
        StepValues v;
        v.in = op.in; v.out = op.out;
        Step& s = add(kStepMatmulGlu, v, op);
        s.activation = h().arch->activation;
        const bool many = set_parts(s, op) / 2 >= b.args_.pool->size() * 8 * kGluPanels;
        s.parts[0].panels_per_unit = s.parts[1].panels_per_unit = many ? kGluPanels : 2;
    }

    /// Weights and kernels of a matmul's parts; returns how many panels they have in all.
    std::uint32_t set_parts(Step& s, const Op& op) const {
        s.n_parts = op.n_parts;
        s.n_nodes = b.args_.numa.n_parts();
        std::uint32_t panels = 0;
        for (std::uint32_t i = 0; i < op.n_parts; ++i) {
            const MatmulPart& p = op.parts[i];
            const gguf::Tensor& t = b.args_.weights->matrix(p.weight, op.layer);
            s.parts[i].add = p.add;
            s.parts[i].rounded = !is_float(t.type);
            s.parts[i].fine = s.parts[i].rounded && wants_fine(p.weight);
            s.parts[i].w.type = t.type;
            s.parts[i].w.n_k = static_cast<std::uint32_t>(t.ne[0]);
            s.parts[i].w.panel_stride = kernels::panel_bytes(t.type, s.parts[i].w.n_k);
            s.parts[i].pack = !b.weights_.packed();
            s.parts[i].kernel = b.args_.table->matmul[kernels::type_index(t.type)];
            panels += static_cast<std::uint32_t>((t.ne[1] + kernels::kLanes - 1) / kernels::kLanes);
        }
        return panels;
    }

    std::size_t act_bytes(ValueId id) const { return kernels::ActLayout(value(id).width).bytes * (state[id].fine ? 2 : 1); }

    /// Lives of all buffers, and their places.
    void place() {
        const auto extend = [&](std::optional<std::size_t>& slot, std::size_t bytes, std::uint32_t at) {
            if (!slot) { slot = buffers.size(); buffers.push_back({bytes, at, at}); }
            buffers[*slot].last = at;
        };
        const auto touch = [&](ValueId id, std::uint32_t at) {
            if (id == kNone) return;
            const Value& v = value(id);
            if (state[id].f32) extend(state[id].f32_buffer, bucket * float_row_bytes(v.width), at);
            if (state[id].act) extend(state[id].act_buffer, bucket * act_bytes(id), at);
        };
        for (std::uint32_t i = 0; i < steps.size(); ++i) {
            const StepValues& v = values[i];
            for (const ValueId id : {v.in, v.in2, v.in3, v.out, v.part_out[0], v.part_out[1], v.part_out[2]}) touch(id, i);
            const Step& s = steps[i];
            if (s.fn == kStepRopeTable.fn || s.fn == kStepRopeStore.fn)
                extend(rope_buffer, bucket * pad64(std::size_t{h().rope.n_rot} * sizeof(float)), i);
            if (s.fn == kStepAttentionSplit.fn || s.fn == kStepAttentionMerge.fn)
                extend(partial_buffer, std::size_t{h().max_head()} * max_parts() * (h().head_dim + 2) * sizeof(float), i);
            if (staging_bytes() > 0 && (s.fn == kStepStage.fn || s.fn == kStepObserve.fn || s.fn == kStepAttention.fn)) extend(staging_buffer, staging_bytes(), i);
        }
        arena = place_buffers(buffers);
    }

    ValueBuffers bind(ValueId id, std::byte* base) const {
        if (id == kNone) return {};
        ValueBuffers out;
        out.width = value(id).width;
        out.f32_stride = float_row_bytes(out.width) / sizeof(float);
        out.act_stride = act_bytes(id);
        out.fine = state[id].fine;
        if (state[id].f32_buffer) out.f32 = reinterpret_cast<float*>(base + buffers[*state[id].f32_buffer].offset);
        if (state[id].act_buffer) out.act = base + buffers[*state[id].act_buffer].offset;
        return out;
    }

    /// Pointers into the arena and the packed weights.
    void bind_all(std::byte* base) {
        for (std::size_t i = 0; i < steps.size(); ++i) {
            Step& s = steps[i];
            const StepValues& v = values[i];
            s.in = bind(v.in, base); s.in2 = bind(v.in2, base); s.in3 = bind(v.in3, base); s.out = bind(v.out, base);
            for (std::uint32_t p = 0; p < s.n_parts; ++p) s.parts[p].out = bind(v.part_out[p], base);
            if (rope_buffer) s.rope_table = reinterpret_cast<float*>(base + buffers[*rope_buffer].offset);
            if (staging_buffer) s.staging = base + buffers[*staging_buffer].offset;
            if (partial_buffer) s.partials = reinterpret_cast<float*>(base + buffers[*partial_buffer].offset);
            bind_weights(s, *v.op);
        }
    }

    void bind_weights(Step& s, const Op& op) const {
        const CpuWeights& w = b.weights_;
        if (s.fn == kStepEmbed.fn && !s.mapped_embedding) s.embedding = w.matrix(Slot::token_embd, 0);
        if (s.fn == kStepAttention.fn || s.fn == kStepAttentionMerge.fn) s.sinks = w.vector(Slot::attn_sinks, op.layer);
        if (s.fn == kStepNorm.fn) s.weight = w.vector(op.weight, op.layer);
        if (s.fn == kStepRopeStore.fn) {
            s.weight = w.vector(Slot::attn_q_norm, op.layer);
            s.weight2 = w.vector(Slot::attn_k_norm, op.layer);
        }
        for (std::uint32_t i = 0; i < s.n_parts; ++i) {
            s.parts[i].w = w.matrix(op.parts[i].weight, op.layer);
            s.parts[i].bias = w.vector(op.parts[i].bias, op.layer);
        }
    }
};

CpuBackend::CpuBackend(const CpuBackendArgs& args)
    : args_(args), weights_(*args.file, *args.weights, args.pack, args.numa, args.n_layers), n_threads_(args.pool->size()), n_threads_batch_(args.pool->size()) {}
CpuBackend::~CpuBackend() = default;

std::string CpuBackend::name() const { return std::string("cpu/") + args_.table->name; }

bool CpuBackend::supports(OpKind op, DType weight) const { return op != OpKind::take_over && args_.table->matmul[kernels::type_index(weight)] != nullptr; }

CpuBackend::Lowered CpuBackend::lower(std::uint32_t bucket) const {
    Lowered l(*this, bucket);
    l.find_forms();
    for (const Op& op : args_.plan->ops) l.lower_op(op);
    l.place();
    return l;
}

CpuBackend::Sizes CpuBackend::sizes() const {
    Sizes out;
    // The smallest bucket alone keeps partial results of attention; the largest needs most of everything else.
    for (const std::uint32_t bucket : {1u, args_.max_bucket}) {
        const Lowered l = lower(bucket);
        out.arena = std::max(out.arena, l.arena);
        out.scratch = std::max(out.scratch, step_scratch_bytes(l.steps));
    }
    return out;
}

BackendMemory CpuBackend::estimate() const {
    const Sizes s = sizes();
    return {weights_.packed_bytes(), weights_.mapped_bytes(), s.arena + s.scratch * args_.pool->size()};
}

Status CpuBackend::prepare(const PrepareProgress& progress) {
    if (auto s = weights_.load(*args_.pool, progress, args_.pack_cache); !s) return s;
    args_.pack_cache = {};   // its log is the caller's, for as long as loading takes
    angles_ = rope_angles(args_.hparams->rope, args_.weights->get(Slot::rope_freqs, 0) ? weights_.vector_values(Slot::rope_freqs, 0) : std::span<const float>{});
    const Sizes s = sizes();
    scratch_stride_ = s.scratch;
    staging_pages_.resize(args_.tiers.on ? args_.tiers.staging_tokens(args_.max_bucket) / kernels::kLanes : 0);
    std::iota(staging_pages_.begin(), staging_pages_.end(), 0u);
    auto arena = Mapping::create(s.arena, "activation buffers", {.huge_pages = true});
    if (!arena) return std::move(arena).error();
    arena_ = std::move(*arena);
    auto scratch = Mapping::create(scratch_stride_ * args_.pool->size(), "thread scratch", {.huge_pages = true});
    if (!scratch) return std::move(scratch).error();
    scratch_ = std::move(*scratch);
    return {};
}

Result<std::unique_ptr<Executable>> CpuBackend::compile(std::uint32_t bucket) {
    Lowered l = lower(bucket);
    if (bucket > args_.max_bucket || l.arena > arena_.size())
        return Error{Errc::internal, "a batch bucket of " + std::to_string(bucket) + " needs more than the arena's " + std::to_string(arena_.size()) + " bytes"};
    l.bind_all(arena_.data());
    return std::unique_ptr<Executable>(new CpuExecutable(bucket, std::move(l.steps)));
}

namespace {

struct RunContext {
    const std::vector<Step>* steps;
    CpuRun run;
    std::byte* scratch;
    std::size_t scratch_stride;
    LayerRange layers = {};

    bool skips(const Step& s) const {
        const bool for_all_layers = s.fn == kStepEmbed.fn || s.fn == kStepRopeTable.fn;
        return !for_all_layers && s.layer - layers.first >= layers.n;
    }
};

std::uint32_t step_units(void* context, std::uint32_t step) {
    const auto& c = *static_cast<const RunContext*>(context);
    if (step == c.steps->size()) return Job::kEnd;
    const Step& s = (*c.steps)[step];
    return c.skips(s) ? 0 : s.count(s, c.run);
}

void step_unit(void* context, std::uint32_t step, std::uint32_t unit, std::uint32_t thread) {
    const auto& c = *static_cast<const RunContext*>(context);
    const Step& s = (*c.steps)[step];
    s.fn(s, c.run, unit, c.scratch + thread * c.scratch_stride);
}

}  // namespace

Status CpuBackend::check_tree(const SeqChunk& c) const {
    const auto refused = [](std::string why) { return Error{Errc::invalid_argument, "this tree of tokens cannot be run: " + std::move(why)}; };
    if (c.n_tokens > SeqChunk::kMaxTree) return refused("it has " + std::to_string(c.n_tokens) + " tokens, " + std::to_string(SeqChunk::kMaxTree) + " is the most");
    for (std::uint32_t i = 0; i < c.n_tokens; ++i)
        if (c.mask[i] >> i != 1) return refused("the mask of token " + std::to_string(i) + " must have its own bit and none behind it");
    if (args_.hparams->window) return refused("the model's attention has a sliding window");
    const std::int64_t last = std::int64_t{c.pos0} + c.n_tokens - 1;
    if (args_.tiers.on && args_.tiers.boundary(c.pos0) != args_.tiers.boundary(last)) return refused("not all of it sees the same positions quantized; run a line of tokens there");
    return {};
}

Status CpuBackend::check_chunks(const RunArgs& args) const {
    const KvTiers& tiers = args_.tiers;
    std::uint32_t staged = 0;
    for (const SeqChunk& c : args.chunks) {
        if (c.mask)
            if (auto s = check_tree(c); !s) return s;
        staged += tiers.on && !tiers.fits_ring(c.pos0, c.n_tokens);
    }
    if (args.observed && args.chunks.size() != 1) return Error{Errc::internal, "only a batch of one chunk can be observed"};
    if (staged <= KvTiers::kStagedChunks) return {};
    return Error{Errc::invalid_argument, std::to_string(staged) + " chunks of more than " + std::to_string(KvTiers::kSlack) + " tokens in one batch; a cache of two tiers takes " + std::to_string(KvTiers::kStagedChunks) + ": run the others in the next one"};
}

Status CpuBackend::run(Executable& executable, const RunArgs& args) {
    const auto& e = static_cast<const CpuExecutable&>(executable);
    if (auto s = check_chunks(args); !s) return s;
    RunContext c{&e.steps(), {&args}, scratch_.data(), scratch_stride_};
    args_.pool->run({step_units, step_unit, &c}, decodes(e.bucket(), args) ? n_threads_ : n_threads_batch_);
    return {};
}

void CpuBackend::probe(Executable& executable, const RunArgs& args, std::uint32_t threads, LayerRange layers) {
    const auto& e = static_cast<const CpuExecutable&>(executable);
    RunContext c{&e.steps(), {&args}, scratch_.data(), scratch_stride_, layers};
    args_.pool->run({step_units, step_unit, &c}, threads);
}

BackendMemory CpuBackend::memory() const { return {weights_.packed_bytes(), weights_.mapped_bytes(), arena_.size() + scratch_.size()}; }

}  // namespace quern::engine
