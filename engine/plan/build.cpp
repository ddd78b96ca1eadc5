// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "engine/plan/plan.h"

namespace quern::engine {
namespace {

struct Builder {
    const Hparams& h;
    const Weights& w;
    Plan plan;

    ValueId value(std::string name, std::uint64_t width, Rows rows = Rows::tokens) {
        plan.values.push_back({std::move(name), static_cast<std::uint32_t>(width), rows});
        return static_cast<ValueId>(plan.values.size() - 1);
    }
    Slot bias(Slot s, std::uint32_t layer) const { return w.get(s, layer) ? s : Slot::count; }

    Rows rows(ValueId v) const { return plan.values[v].rows; }

    ValueId norm(ValueId x, Slot weight, std::uint32_t layer, std::string name) {
        const ValueId out = value(std::move(name), h.n_embd, rows(x));
        Op op{OpKind::rms_norm, layer};
        op.in = x; op.out = out; op.weight = weight;
        plan.ops.push_back(op);
        return out;
    }
    ValueId gather(ValueId in) {
        const Value& v = plan.values[in];
        const ValueId out = value(v.name + ".outputs", v.width, Rows::outputs);
        Op op{OpKind::gather};
        op.in = in; op.out = out;
        plan.ops.push_back(op);
        return out;
    }
    void matmul(ValueId in, std::uint32_t layer, std::initializer_list<MatmulPart> parts) {
        Op op{OpKind::matmul, layer};
        op.in = in;
        for (const MatmulPart& p : parts) op.parts[op.n_parts++] = p;
        plan.ops.push_back(op);
    }

    /// Returns the residual stream behind it. In the last layer nothing after attention mixes tokens, so only those whose
    /// logits are wanted go on.
    ValueId attention_block(ValueId x, std::uint32_t l, const std::string& at) {
        const ValueId hn = norm(x, Slot::attn_norm, l, at + "attn_norm");
        const ValueId q = value(at + "q", h.dim(Dim::q_rows, l)), k = value(at + "k", h.dim(Dim::kv_rows, l)), v = value(at + "v", h.dim(Dim::kv_rows, l));
        matmul(hn, l, {{Slot::attn_q, bias(Slot::attn_q_bias, l), q}, {Slot::attn_k, bias(Slot::attn_k_bias, l), k}, {Slot::attn_v, bias(Slot::attn_v_bias, l), v}});
        Op rope{OpKind::rope_store, l};
        rope.in = q; rope.in2 = k; rope.in3 = v;
        plan.ops.push_back(rope);
        ValueId a = value(at + "attn", h.dim(Dim::q_rows, l));
        Op attn{OpKind::attention, l};
        attn.in = q; attn.out = a;
        plan.ops.push_back(attn);
        if (l + 1 == h.n_layer) {
            a = gather(a);
            x = gather(x);
        }
        matmul(a, l, {{Slot::attn_output, bias(Slot::attn_output_bias, l), x, true}});
        return x;
    }

    void ffn_block(ValueId x, std::uint32_t l, const std::string& at) {
        const ValueId hn = norm(x, Slot::ffn_norm, l, at + "ffn_norm");
        const ValueId act = value(at + "glu", h.n_ff[l], rows(x));
        Op glu{OpKind::matmul_glu, l};
        glu.in = hn; glu.out = act;
        glu.n_parts = 2;
        glu.parts[0].weight = Slot::ffn_gate; glu.parts[1].weight = Slot::ffn_up;
        plan.ops.push_back(glu);
        matmul(act, l, {{Slot::ffn_down, Slot::count, x, true}});
    }
};

}  // namespace

Plan build_plan(const Hparams& h, const Weights& w) {
    Builder b{h, w, {}};
    ValueId x = b.value("x", h.n_embd);
    Op embed{OpKind::embed};
    embed.out = x;
    b.plan.ops.push_back(embed);
    for (std::uint32_t l = 0; l < h.n_layer; ++l) {
        const std::string at = "l" + std::to_string(l) + ".";
        x = b.attention_block(x, l, at);
        b.ffn_block(x, l, at);
    }
    const ValueId last = b.norm(x, Slot::output_norm, 0, "output_norm");
    b.plan.logits = b.value("logits", h.n_vocab, Rows::outputs);
    b.matmul(last, 0, {{Slot::output, Slot::count, b.plan.logits}});
    return std::move(b.plan);
}

PlanCut cut_plan(const Plan& plan, std::uint32_t layer) {
    const auto border = std::find_if(plan.ops.begin(), plan.ops.end(), [&](const Op& op) { return op.weight == Slot::attn_norm && op.layer == layer; });
    Op out{OpKind::hand_over}, in{OpKind::take_over};
    out.layer = in.layer = layer;
    out.in = in.out = border->in;
    PlanCut cut{{plan.values, {plan.ops.begin(), border}, plan.logits}, {plan.values, {in}, plan.logits}};
    cut.head.ops.push_back(out);
    cut.tail.ops.insert(cut.tail.ops.end(), border, plan.ops.end());
    return cut;
}

std::size_t place_buffers(std::vector<BufferLife>& buffers) {
    std::vector<BufferLife*> order;
    for (auto& b : buffers) {
        b.bytes = (b.bytes + 63) / 64 * 64;
        order.push_back(&b);
    }
    std::stable_sort(order.begin(), order.end(), [](auto* a, auto* b) { return a->bytes > b->bytes; });
    std::size_t total = 0;
    std::vector<const BufferLife*> placed;
    for (BufferLife* b : order) {
        // Lowest offset that no buffer alive at the same time covers; `placed` is kept sorted by offset.
        std::size_t at = 0;
        for (const BufferLife* p : placed) {
            const bool apart = p->last < b->first || b->last < p->first;
            if (apart || p->offset + p->bytes <= at) continue;
            if (p->offset >= at + b->bytes) break;
            at = p->offset + p->bytes;
        }
        b->offset = at;
        placed.insert(std::upper_bound(placed.begin(), placed.end(), b, [](auto* a, auto* c) { return a->offset < c->offset; }), b);
        total = std::max(total, at + b->bytes);
    }
    return total;
}

}  // namespace quern::engine
