// SPDX-License-Identifier: Apache-2.0
#include "engine/backend/cpu_steps.h"

#include <algorithm>
#include <cstring>

#include "engine/core/exp.h"

namespace quern::engine {
namespace {

using kernels::kAttnSpan;
using kernels::kLanes;

std::uint32_t n_rows(const Step& s, const CpuRun& r) {
    return static_cast<std::uint32_t>(s.output_rows ? r.args->outputs.size() : r.args->tokens.size());
}
std::uint32_t count_rows(const Step& s, const CpuRun& r) { return n_rows(s, r); }

float* row(const ValueBuffers& v, std::size_t i) { return v.f32 + i * v.f32_stride; }
/// Values [first, first + count) of row i of the step's output, x being the first of them, to their rounded form.
void round_part(const Step& s, const float* x, std::size_t i, std::uint32_t first, std::uint32_t count) {
    if (s.out.act) (s.out.fine ? s.table->quantize_act_fine : s.table->quantize_act)(x, first, count, s.out.width, s.out.act + i * s.out.act_stride);
}
void round_row(const Step& s, const float* x, std::size_t i) { round_part(s, x, i, 0, s.out.width); }

/// Bytes of n floats, rounded up so that what follows is 64-byte aligned.
std::size_t float_bytes(std::size_t n) { return (n * sizeof(float) + 63) / 64 * 64; }

void embed(const Step& s, const CpuRun& r, std::uint32_t unit, std::byte*) {
    const auto token = static_cast<std::uint32_t>(r.args->tokens[unit]);
    if (s.mapped_embedding) {
        const gguf::Tensor& t = *s.mapped_embedding;
        const std::size_t row_bytes = t.data.size() / t.ne[1];
        info(t.type).decode(t.data.data() + token * row_bytes, row(s.out, unit), t.ne[0]);
        return;
    }
    const PackedMatrix& m = s.embedding;
    s.table->unpack_row[kernels::type_index(m.type)](m.panels + token / kLanes * m.panel_stride, token % kLanes, m.n_k, row(s.out, unit));
}

void rope_table(const Step& s, const CpuRun& r, std::uint32_t unit, std::byte*) {
    const SeqChunk* c = r.args->chunks.data();
    while (unit >= c->first + c->n_tokens) ++c;
    s.angles->table(c->position(unit - c->first), s.rope_table + std::size_t{unit} * s.n_rot);
}

void norm(const Step& s, const CpuRun&, std::uint32_t unit, std::byte* scratch) {
    float* out = s.out.f32 ? row(s.out, unit) : reinterpret_cast<float*>(scratch);
    s.table->rms_norm(row(s.in, unit), s.weight, s.eps, s.out.width, out);
    round_row(s, out, unit);
}

void gather(const Step& s, const CpuRun& r, std::uint32_t unit, std::byte*) {
    const float* from = row(s.in, r.args->outputs[unit]);
    if (s.out.f32) std::memcpy(row(s.out, unit), from, s.out.width * sizeof(float));
    round_row(s, from, unit);
}

void hand_over(const Step& s, const CpuRun& r, std::uint32_t unit, std::byte*) {
    std::memcpy(r.args->crossing + std::size_t{unit} * s.in.width, row(s.in, unit), s.in.width * sizeof(float));
}

// --- Matmul: a unit is a stretch of panels of one part, over all columns. Units are numbered node after node, within a
// node part after part, so that the even cut of the pool's queues gives each node the rows that lie there. ---

std::uint32_t units_of(const StepPart& p) { return (p.w.n_panels() + p.panels_per_unit - 1) / p.panels_per_unit; }

std::uint32_t count_matmul(const Step& s, const CpuRun& r) {
    if (n_rows(s, r) == 0) return 0;
    std::uint32_t n = 0;
    for (std::uint32_t i = 0; i < s.n_parts; ++i) n += units_of(s.parts[i]);
    return n;
}

/// Arguments for the unit's rows over columns [col, col + n_cols); where they go is left to the caller.
kernels::MatmulArgs part_args(const Step& s, const StepPart& p, std::uint32_t unit, std::uint32_t col, std::uint32_t n_cols,
                              std::byte* scratch) {
    const std::uint32_t panel = unit * p.panels_per_unit, first_row = panel * kLanes;
    kernels::MatmulArgs a{};
    a.w = p.pack ? p.w.rows + std::size_t{first_row} * p.w.row_bytes : p.w.panels + panel * p.w.panel_stride;
    a.panel_stride = p.w.panel_stride;
    a.n_rows = std::min(p.w.n_rows - first_row, p.panels_per_unit * kLanes);
    a.n_k = p.w.n_k;
    a.x_stride = p.rounded ? s.in.act_stride : s.in.f32_stride * sizeof(float);
    a.x = (p.rounded ? s.in.act : reinterpret_cast<const std::byte*>(s.in.f32)) + col * a.x_stride;
    a.n_cols = n_cols;
    if (p.fine) {   // columns have both terms, one behind the other
        a.pairs = true;
        a.x_stride /= 2;
        a.n_cols *= 2;
    }
    a.bias = p.bias ? p.bias + first_row : nullptr;
    a.add = p.add;
    a.scratch = scratch;
    return a;
}

/// Panels that are packed and used at a time where weights are not packed at load: few enough to stay in a core's cache, an
/// even number because some tiles are two panels wide.
std::uint32_t panels_at_once(const StepPart& p) {
    constexpr std::size_t kBytes = 64 << 10;
    return static_cast<std::uint32_t>(std::clamp<std::size_t>(kBytes / p.w.panel_stride, 2, p.panels_per_unit) + 1) / 2 * 2;
}

/// a.w: rows as in the file. They are packed into scratch piece by piece; rows are independent, so the cut is of no matter.
void pack_and_multiply(const StepPart& p, kernels::MatmulArgs a) {
    const std::byte* const rows = a.w;
    std::byte* const panels = a.scratch;
    const std::uint32_t n_rows = a.n_rows, step = panels_at_once(p) * kLanes;
    a.w = panels;
    a.scratch += panels_at_once(p) * p.w.panel_stride;
    for (std::uint32_t r = 0; r < n_rows; r += step) {
        a.n_rows = std::min(step, n_rows - r);
        for (std::uint32_t i = 0; i < a.n_rows; i += kLanes)
            kernels::pack_panel(p.w.type, rows + std::size_t{r + i} * p.w.row_bytes, p.w.row_bytes, std::min(kLanes, a.n_rows - i), a.n_k,
                                panels + i / kLanes * p.w.panel_stride);
        p.kernel(a);
        a.y += a.n_rows;
        if (a.bias) a.bias += a.n_rows;
    }
}

void run_part(const StepPart& p, const kernels::MatmulArgs& a) { p.pack ? pack_and_multiply(p, a) : p.kernel(a); }

void matmul(const Step& s, const CpuRun& r, std::uint32_t unit, std::byte* scratch) {
    const StepPart* p = s.parts;
    for (std::uint32_t node = 0;;) {
        const std::uint32_t first = even_part(units_of(*p), node, s.n_nodes), end = even_part(units_of(*p), node + 1, s.n_nodes);
        if (unit < end - first) {
            unit += first;
            break;
        }
        unit -= end - first;
        if (++p == s.parts + s.n_parts) p = s.parts, ++node;
    }
    kernels::MatmulArgs a = part_args(s, *p, unit, 0, n_rows(s, r), scratch);
    a.y = (p->out.f32 ? p->out.f32 : r.args->logits) + unit * p->panels_per_unit * kLanes;
    a.y_stride = p->out.f32 ? p->out.f32_stride : r.args->logits_stride;
    run_part(*p, a);
}

// --- Gate, up and the gated activation: a unit is the same stretch of rows of both. Their results stay in scratch. ---

constexpr std::uint32_t kGluCols = 256;   // columns at a time, so that scratch stays within the L2 cache
constexpr std::size_t kGluFloats = std::size_t{kGluCols} * kGluPanels * kLanes;

std::size_t part_scratch(const Step& s) {
    std::size_t n = 0;
    for (std::uint32_t i = 0; i < s.n_parts; ++i) {
        const StepPart& p = s.parts[i];
        const std::size_t panels = p.pack ? panels_at_once(p) * p.w.panel_stride : 0;
        n = std::max(n, panels + s.table->matmul_scratch[kernels::type_index(p.w.type)](p.w.n_k));
    }
    return (n + 63) / 64 * 64;
}

std::uint32_t count_matmul_glu(const Step& s, const CpuRun& r) { return n_rows(s, r) ? units_of(s.parts[0]) : 0; }

void matmul_glu(const Step& s, const CpuRun& r, std::uint32_t unit, std::byte* scratch) {
    auto* gate = reinterpret_cast<float*>(scratch + part_scratch(s));
    float* up = gate + kGluFloats;
    const auto activate = s.activation == Activation::swiglu ? s.table->swiglu : s.table->geglu;
    const std::uint32_t cols = n_rows(s, r), first = unit * s.parts[0].panels_per_unit * kLanes;
    for (std::uint32_t c0 = 0; c0 < cols; c0 += kGluCols) {
        const std::uint32_t n = std::min(cols - c0, kGluCols);
        std::uint32_t rows = 0;
        for (std::uint32_t i = 0; i < 2; ++i) {
            kernels::MatmulArgs a = part_args(s, s.parts[i], unit, c0, n, scratch);
            a.y = i ? up : gate;
            a.y_stride = rows = a.n_rows;
            run_part(s.parts[i], a);
        }
        for (std::uint32_t c = 0; c < n; ++c) {
            float* g = gate + std::size_t{c} * rows;
            float* out = s.out.f32 ? row(s.out, c0 + c) + first : g;
            activate(g, up + std::size_t{c} * rows, rows, out);
            round_part(s, out, c0 + c, first, rows);
        }
    }
}

// --- Rotation and store: a unit is up to 16 tokens of one chunk. ---

struct Tile { const SeqChunk* chunk; std::uint32_t first, n; };   // first: within the chunk

std::uint32_t tiles_of(const SeqChunk& c, std::uint32_t tile) { return (c.n_tokens + tile - 1) / tile; }

std::uint32_t count_tiles(const CpuRun& r, std::uint32_t tile) {
    std::uint32_t n = 0;
    for (const SeqChunk& c : r.args->chunks) n += tiles_of(c, tile);
    return n;
}

Tile find_tile(const CpuRun& r, std::uint32_t index, std::uint32_t tile) {
    const SeqChunk* c = r.args->chunks.data();
    while (index >= tiles_of(*c, tile)) index -= tiles_of(*c++, tile);
    return {c, index * tile, std::min(tile, c->n_tokens - index * tile)};
}

// --- Two tiers: where a chunk's exact positions lie, and their migration. docs/numerics.md has the rule. ---

/// F16 pages of a chunk: positions from `from` on, counted from there.
struct Exact { kernels::KvHeadView view; std::int32_t from; };

bool staged(const Step& s, const SeqChunk& c) { return !s.tiers.fits_ring(c.pos0, c.n_tokens); }

const std::uint32_t* ring_pages(const Step& s, const SeqChunk& c, std::int32_t pos) {
    const std::uint32_t page = s.exact->shape().page_tokens, n = s.tiers.ring_tokens / page;
    return c.exact + 1 + static_cast<std::uint32_t>(pos) / page % n;
}

kernels::KvHeadView staging_view(const Step& s, const CpuRun& r, const SeqChunk& chunk, std::uint32_t head) {
    std::uint32_t before = 0;   // pages of the staged chunks before this one
    for (const SeqChunk* c = r.args->chunks.data(); c != &chunk; ++c)
        if (staged(s, *c)) before += s.tiers.staged_tokens(c->pos0, c->n_tokens) / kLanes;
    kernels::KvHeadView v = s.exact->view(s.layer, head, s.staging_pages + before);
    v.base = s.staging;
    return v;
}

Exact exact_view(const Step& s, const CpuRun& r, const SeqChunk& c, std::uint32_t head) {
    const std::int32_t from = s.tiers.window(c.pos0);
    if (staged(s, c)) return {staging_view(s, r, c, head), from};
    return {s.exact->view(s.layer, head, ring_pages(s, c, from)), from};
}

std::byte* page_of(const kernels::KvHeadView& v, std::uint32_t i) { return v.base + v.pages[i] * v.page_stride; }

std::uint32_t pages_between(std::int32_t from, std::int32_t to) { return (static_cast<std::uint32_t>(to - from) + kLanes - 1) / kLanes; }

/// The page of the first positions.
kernels::KvHeadView sink_view(const Step& s, const SeqChunk& c, std::uint32_t head) { return s.exact->view(s.layer, head, c.exact); }

/// A staged chunk begins with what its ring holds; a unit is a page of all heads.
std::uint32_t stage_units(const Step& s, const SeqChunk& c) { return staged(s, c) ? pages_between(s.tiers.window(c.pos0), c.pos0) : 0; }
std::uint32_t count_stage(const Step& s, const CpuRun& r) {
    std::uint32_t n = 0;
    for (const SeqChunk& c : r.args->chunks) n += stage_units(s, c);
    return n;
}
void stage(const Step& s, const CpuRun& r, std::uint32_t unit, std::byte*) {
    const SeqChunk* c = r.args->chunks.data();
    while (unit >= stage_units(s, *c)) unit -= stage_units(s, *c++);
    const auto to = staging_view(s, r, *c, 0), from = s.exact->view(s.layer, 0, ring_pages(s, *c, s.tiers.window(c->pos0)));
    std::memcpy(page_of(to, unit), page_of(from, unit), from.page_stride);
}

/// Once a chunk is stored: whole groups to the quantized tier, a unit a head and group; then what the next chunk will need
/// of a staged one to its pages, a unit a page.
struct Migration { std::uint32_t quantize, keep; std::int32_t from, kept; };
Migration migration_of(const Step& s, const SeqChunk& c) {
    const auto end = c.pos0 + static_cast<std::int32_t>(c.n_tokens);
    Migration m{};
    m.from = s.tiers.window(c.pos0);
    m.quantize = static_cast<std::uint32_t>(s.tiers.window(end) - m.from) / KvTiers::kBatch * s.n_head_kv;
    if (!staged(s, c)) return m;
    const auto lanes = static_cast<std::int32_t>(kLanes);
    m.kept = c.kept ? c.kept_from : std::max(m.from, (end - static_cast<std::int32_t>(s.tiers.ring_tokens) + lanes - 1) / lanes * lanes);
    m.keep = pages_between(m.kept, end);
    return m;
}
std::uint32_t count_migrate(const Step& s, const CpuRun& r) {
    std::uint32_t n = 0;
    for (const SeqChunk& c : r.args->chunks) {
        const Migration m = migration_of(s, c);
        n += m.quantize + m.keep;
    }
    return n;
}
void migrate(const Step& s, const CpuRun& r, std::uint32_t unit, std::byte*) {
    const SeqChunk* c = r.args->chunks.data();
    Migration m = migration_of(s, *c);
    while (unit >= m.quantize + m.keep) {
        unit -= m.quantize + m.keep;
        m = migration_of(s, *++c);
    }
    if (unit < m.quantize) {
        const std::uint32_t head = unit % s.n_head_kv, offset = unit / s.n_head_kv * KvTiers::kBatch;
        const auto format = static_cast<int>(s.pages->shape().format) - kernels::kKvExactFormats;
        const std::int32_t to = m.from + static_cast<std::int32_t>(offset);
        Exact from = exact_view(s, r, *c, head);
        from.view.pages += offset / kLanes;
        // Nobody looks for the first positions there: their place must not make the scales of their group coarser.
        const std::uint32_t twice[] = {from.view.pages[1], from.view.pages[1]};
        static_assert(KvTiers::kSink == kLanes && KvTiers::kBatch == 2 * kLanes);
        if (to == 0) from.view.pages = twice;
        s.table->kv_quantize[format]({from.view, s.pages->view(s.layer, head, c->pages), 0, to});
        return;
    }
    const auto from = staging_view(s, r, *c, 0);
    const std::uint32_t page = unit - m.quantize;
    const auto to = s.exact->view(s.layer, 0, c->kept ? c->kept : ring_pages(s, *c, m.kept));
    std::memcpy(page_of(to, page), page_of(from, page + static_cast<std::uint32_t>(m.kept - m.from) / kLanes), from.page_stride);
}

std::uint32_t count_rope(const Step&, const CpuRun& r) { return count_tiles(r, kLanes); }

void rope_store(const Step& s, const CpuRun& r, std::uint32_t unit, std::byte*) {
    const Tile t = find_tile(r, unit, kLanes);
    const auto rotate = s.pairs == RopePairs::norm ? s.table->rope_norm : s.table->rope_neox;
    for (std::uint32_t i = 0; i < t.n; ++i) {
        const std::size_t token = t.chunk->first + t.first + i;
        const float* cs = s.rope_table + token * s.n_rot;
        for (std::uint32_t which = 0; which < 2; ++which) {
            float* x = row(which ? s.in2 : s.in, token);
            const std::uint32_t heads = which ? s.n_head_kv : s.n_head;
            if (const float* w = which ? s.weight2 : s.weight)
                for (std::uint32_t hd = 0; hd < heads; ++hd) s.table->rms_norm(x + hd * s.head_dim, w, s.eps, s.head_dim, x + hd * s.head_dim);
            rotate(x, heads, s.head_dim, s.n_rot, cs);
        }
    }
    const std::size_t token = t.chunk->first + t.first;
    for (std::uint32_t hd = 0; hd < s.n_head_kv; ++hd) {
        kernels::KvStoreArgs a;
        const Exact to = s.tiers.on ? exact_view(s, r, *t.chunk, hd) : Exact{s.pages->view(s.layer, hd, t.chunk->pages), 0};
        a.kv = to.view;
        a.k = row(s.in2, token) + hd * s.head_dim;
        a.v = row(s.in3, token) + hd * s.head_dim;
        a.k_stride = s.in2.f32_stride;
        a.v_stride = s.in3.f32_stride;
        a.n_tokens = t.n;
        const std::int32_t pos = t.chunk->pos0 + static_cast<std::int32_t>(t.first), sink = KvTiers::kSink;
        a.pos0 = pos - to.from;
        const auto store = s.table->kv_store[static_cast<int>((s.tiers.on ? s.exact : s.pages)->shape().format)];
        store(a);
        if (!s.tiers.on || pos >= sink) continue;
        a.kv = sink_view(s, *t.chunk, hd);
        a.pos0 = pos;
        a.n_tokens = std::min(t.n, static_cast<std::uint32_t>(sink - pos));
        store(a);
    }
}

// --- Attention: a unit is one KV head and a tile of tokens; parts are merged in ascending order, always. ---

std::uint32_t tile_tokens(const Step& s) { return std::max(1u, kernels::kAttnMaxRows / (s.n_head / s.n_head_kv)); }

/// Tokens from index `first` of a chunk on that see the same positions quantized.
std::uint32_t same_boundary(const Step& s, const SeqChunk& c, std::uint32_t first) {
    const std::uint32_t left = c.n_tokens - first;
    if (!s.tiers.on) return left;
    const std::int64_t pos = std::int64_t{c.pos0} + first, next = s.tiers.boundary(pos) + std::int64_t{KvTiers::kBatch};
    return static_cast<std::uint32_t>(std::min<std::int64_t>(left, next + s.tiers.tail - 1 - pos));   // boundary(pos + this) is `next`
}

/// Calls fn(tile) for the tiles of all chunks in order until it returns true.
template <class Fn>
void each_attention_tile(const Step& s, const CpuRun& r, Fn fn) {
    std::uint32_t most = tile_tokens(s);
    if (s.tiers.on && most < KvTiers::kBatch) {   // equal tiles of a group's tokens
        const std::uint32_t tiles = (KvTiers::kBatch + most - 1) / most;
        most = (KvTiers::kBatch + tiles - 1) / tiles;
    }
    for (const SeqChunk& c : r.args->chunks)
        for (std::uint32_t first = 0; first < c.n_tokens;) {
            const std::uint32_t n = std::min(most, same_boundary(s, c, first));
            if (fn(Tile{&c, first, n})) return;
            first += n;
        }
}

std::uint32_t attention_tiles(const Step& s, const CpuRun& r) {
    if (!s.tiers.on) return count_tiles(r, tile_tokens(s));
    std::uint32_t n = 0;
    each_attention_tile(s, r, [&](const Tile&) { return ++n, false; });
    return n;
}

Tile attention_tile(const Step& s, const CpuRun& r, std::uint32_t index) {
    if (!s.tiers.on) return find_tile(r, index, tile_tokens(s));
    Tile out{};
    each_attention_tile(s, r, [&](const Tile& t) { out = t; return index-- == 0; });
    return out;
}

/// What a tile's rows look at, in ascending order: the first positions where others are quantized, spans of the quantized
/// tier, spans of the exact one; one tier where there is no other. Aligned at multiples of a span, and cut at the border.
struct Parts {
    std::int32_t n_sink, first, n_old, border, first_exact, end;
    std::int32_t count() const { return n_sink + n_old + (end - 1) / static_cast<std::int32_t>(kAttnSpan) + 1 - first_exact; }
};
Parts parts_of(const Step& s, std::int32_t pos0, std::int32_t pos_last) {
    const std::int32_t span = kAttnSpan;
    Parts p{};
    const std::int32_t least = s.window ? std::max(0, pos0 - static_cast<std::int32_t>(s.window) + 1) : 0;
    p.border = s.tiers.on ? s.tiers.boundary(pos0) : 0;
    p.end = pos_last + 1;
    p.n_sink = p.border > 0 && least < static_cast<std::int32_t>(KvTiers::kSink);
    p.first = least / span;
    p.n_old = least < p.border ? (p.border - 1) / span + 1 - p.first : 0;
    p.first_exact = std::max(least, p.border) / span;
    return p;
}

/// What is the same for all parts.
kernels::AttnArgs attention_args(const Step& s, const Tile& t, std::uint32_t head_kv, std::byte* scratch) {
    const std::uint32_t n_rep = s.n_head / s.n_head_kv;
    kernels::AttnArgs a{};
    a.q = row(s.in, t.chunk->first + t.first) + std::size_t{head_kv} * n_rep * s.head_dim;
    a.q_stride = s.in.f32_stride;
    a.n_tokens = t.n;
    a.n_rep = n_rep;
    a.window = static_cast<std::int32_t>(s.window);
    a.scale = s.attn_scale;
    a.softcap = s.softcap;
    if (t.chunk->mask) a.mask = t.chunk->mask + t.first;
    a.out_stride = s.head_dim;
    a.scratch = scratch;
    return a;
}

/// A call of `kernel` whose positions are counted from `from`, a multiple of a group.
struct PartCall {
    kernels::AttnArgs args;
    void (*kernel)(const kernels::AttnArgs&);
    std::int32_t from;
};

PartCall part_call(const Step& s, const CpuRun& r, const Tile& t, std::uint32_t head_kv, const Parts& p, std::int32_t i,
                   kernels::AttnArgs a) {
    const std::int32_t span = kAttnSpan, pos0 = t.chunk->pos0 + static_cast<std::int32_t>(t.first);
    i -= p.n_sink;
    const bool sink = i < 0, old = !sink && i < p.n_old, own = s.tiers.on && !old;
    Exact from{};
    if (sink) from.view = sink_view(s, *t.chunk, head_kv);
    else if (own) from = exact_view(s, r, *t.chunk, head_kv);
    else from.view = s.pages->view(s.layer, head_kv, t.chunk->pages);
    const std::int32_t at = sink ? 0 : (old ? p.first + i : p.first_exact + i - p.n_old) * span;
    a.kv = from.view;
    a.pos0 = pos0 - from.from;
    a.mask_from = t.chunk->pos0 - from.from;
    a.begin = (sink || old ? at : std::max(at, p.border)) - from.from;
    a.end = sink ? static_cast<std::int32_t>(KvTiers::kSink) : std::min(at + span, old ? p.border : p.end) - from.from;
    a.known = s.tiers.on ? 0 : p.end;
    a.first = old ? static_cast<std::int32_t>(KvTiers::kSink) : 0;
    return {a, s.table->attention[static_cast<int>((own ? s.exact : s.pages)->shape().format)], from.from};
}

void attend_part(const Step& s, const CpuRun& r, const Tile& t, std::uint32_t head_kv, const Parts& p, std::int32_t i,
                 const kernels::AttnArgs& a) {
    const PartCall call = part_call(s, r, t, head_kv, p, i, a);
    call.kernel(call.args);
}

/// The heads that share a KV head, to their places in row i.
void finish_heads(const Step& s, const float* acc, const float* ml, std::uint32_t head_kv, std::size_t i, float* scratch) {
    const std::uint32_t n_rep = s.n_head / s.n_head_kv, width = n_rep * s.head_dim, first = head_kv * width;
    float* out = s.out.f32 ? row(s.out, i) + first : scratch;
    s.table->attn_finish(acc, ml, n_rep, s.head_dim, s.head_dim, out, s.head_dim, s.sinks ? s.sinks + head_kv * n_rep : nullptr);
    if (rounds_in_parts(width)) round_part(s, out, i, first, width);
}

std::uint32_t count_attention(const Step& s, const CpuRun& r) { return attention_tiles(s, r) * s.n_head_kv; }

void attention(const Step& s, const CpuRun& r, std::uint32_t unit, std::byte* scratch) {
    // Late tokens see most: they go first, so that the last units to finish are small.
    const Tile t = attention_tile(s, r, attention_tiles(s, r) - 1 - unit / s.n_head_kv);
    const std::uint32_t head_kv = unit % s.n_head_kv;
    kernels::AttnArgs a = attention_args(s, t, head_kv, scratch);
    const std::uint32_t rows = a.n_tokens * a.n_rep;
    auto* acc = reinterpret_cast<float*>(scratch + kernels::kAttnScratch);
    float* acc_ml = acc + std::size_t{kernels::kAttnMaxRows} * s.head_dim;
    float* part = acc_ml + 2 * kernels::kAttnMaxRows;
    float* part_ml = part + std::size_t{kernels::kAttnMaxRows} * s.head_dim;
    const std::int32_t pos0 = t.chunk->pos0 + static_cast<std::int32_t>(t.first);
    const Parts parts = parts_of(s, pos0, pos0 + static_cast<std::int32_t>(t.n) - 1);
    for (std::int32_t i = 0; i < parts.count(); ++i) {
        a.out = i ? part : acc;
        a.ml = i ? part_ml : acc_ml;
        attend_part(s, r, t, head_kv, parts, i, a);
        if (i) s.table->attn_merge(acc, acc_ml, part, part_ml, rows, s.head_dim, s.head_dim);
    }
    for (std::uint32_t i = 0; i < t.n; ++i)
        finish_heads(s, acc + std::size_t{i} * a.n_rep * s.head_dim, acc_ml + 2 * i * a.n_rep, head_kv, t.chunk->first + t.first + i, part);
}

// --- Observation: a unit is one KV head. The attention kernel itself weighs a block after the other, so that each cache format
// has it; how a block compares with all that a row sees is known once its spans have been seen. ---

std::uint32_t count_observe(const Step& s, const CpuRun& r) { return r.args->observed ? s.n_head_kv : 0; }

/// The largest score that a row has seen so far, and the sum of exp(score - that).
struct RowSum {
    double max = 0, sum = 0;
    void add(const float* ml) {
        const double m = ml[0], l = ml[1];
        if (l == 0) return;
        if (sum == 0 || m > max) {
            sum = sum == 0 ? l : sum * exp_negative(max - m) + l;
            max = m;
        } else {
            sum += exp_negative(m - max) * l;
        }
    }
    double share(const float* ml) const { return ml[1] == 0 ? 0 : exp_negative(ml[0] - max) * ml[1] / sum; }
};

void observe_tile(const Step& s, const CpuRun& r, const Tile& t, std::uint32_t head_kv, double* shares, std::byte* scratch) {
    kernels::AttnArgs a = attention_args(s, t, head_kv, scratch);
    a.out = reinterpret_cast<float*>(scratch + kernels::kAttnScratch);
    a.ml = a.out + std::size_t{kernels::kAttnMaxRows} * s.head_dim;
    const std::uint32_t rows = t.n * a.n_rep;
    const std::int32_t pos0 = t.chunk->pos0 + static_cast<std::int32_t>(t.first);
    const Parts parts = parts_of(s, pos0, pos0 + static_cast<std::int32_t>(t.n) - 1);
    RowSum sums[kernels::kAttnMaxRows];
    for (std::int32_t i = 0; i < parts.count(); ++i) {
        attend_part(s, r, t, head_kv, parts, i, a);
        for (std::uint32_t k = 0; k < rows; ++k) sums[k].add(a.ml + 2 * k);
    }
    const auto block = static_cast<std::int32_t>(RunArgs::kObservedBlock);
    static_assert(RunArgs::kObservedBlock % KvTiers::kBatch == 0 && kAttnSpan % RunArgs::kObservedBlock == 0);
    for (std::int32_t i = 0; i < parts.count(); ++i) {
        PartCall call = part_call(s, r, t, head_kv, parts, i, a);
        for (const std::int32_t end = call.args.end; call.args.begin < end; call.args.begin = call.args.end) {
            call.args.end = std::min(call.args.begin + block, end);
            call.kernel(call.args);
            double& share = shares[(call.args.begin + call.from) / block];
            for (std::uint32_t k = 0; k < rows; ++k) share += sums[k].share(a.ml + 2 * k);
        }
    }
}

void observe(const Step& s, const CpuRun& r, std::uint32_t head_kv, std::byte* scratch) {
    const SeqChunk& c = r.args->chunks[0];
    const std::uint32_t blocks = RunArgs::observed_blocks(static_cast<std::uint32_t>(c.pos0) + c.n_tokens);
    double* const shares = r.args->observed + std::size_t{s.n_heads_before + head_kv} * blocks;
    each_attention_tile(s, r, [&](const Tile& t) { return observe_tile(s, r, t, head_kv, shares, scratch), false; });
}

// Split attention, for a single token: a unit is one KV head and one part; a second step merges.

Tile only_token(const CpuRun& r) { return {&r.args->chunks[0], 0, 1}; }
Parts only_parts(const Step& s, const CpuRun& r) { return parts_of(s, r.args->chunks[0].pos0, r.args->chunks[0].pos0); }
float* partial(const Step& s, std::uint32_t head_kv, std::uint32_t part) {
    const std::size_t n_rep = s.n_head / s.n_head_kv;
    return s.partials + (std::size_t{head_kv} * s.max_spans + part) * n_rep * (s.head_dim + 2);
}

std::uint32_t count_split(const Step& s, const CpuRun& r) { return s.n_head_kv * static_cast<std::uint32_t>(only_parts(s, r).count()); }

void attention_split(const Step& s, const CpuRun& r, std::uint32_t unit, std::byte* scratch) {
    const std::uint32_t head_kv = unit % s.n_head_kv, part = unit / s.n_head_kv;
    kernels::AttnArgs a = attention_args(s, only_token(r), head_kv, scratch);
    a.out = partial(s, head_kv, part);
    a.ml = a.out + std::size_t{a.n_rep} * s.head_dim;
    attend_part(s, r, only_token(r), head_kv, only_parts(s, r), static_cast<std::int32_t>(part), a);
}

std::uint32_t count_heads_kv(const Step& s, const CpuRun&) { return s.n_head_kv; }

void attention_merge(const Step& s, const CpuRun& r, std::uint32_t unit, std::byte* scratch) {
    const std::uint32_t n_rep = s.n_head / s.n_head_kv;
    const auto parts = static_cast<std::uint32_t>(only_parts(s, r).count());
    float* acc = partial(s, unit, 0);
    float* ml = acc + std::size_t{n_rep} * s.head_dim;
    for (std::uint32_t i = 1; i < parts; ++i) {
        const float* b = partial(s, unit, i);
        s.table->attn_merge(acc, ml, b, b + std::size_t{n_rep} * s.head_dim, n_rep, s.head_dim, s.head_dim);
    }
    finish_heads(s, acc, ml, unit, 0, reinterpret_cast<float*>(scratch));
}

void round_value(const Step& s, const CpuRun&, std::uint32_t unit, std::byte*) { round_row(s, row(s.out, unit), unit); }

}  // namespace

const StepKind kStepEmbed{embed, count_rows};
const StepKind kStepRopeTable{rope_table, count_rows};
const StepKind kStepNorm{norm, count_rows};
const StepKind kStepGather{gather, count_rows};
const StepKind kStepMatmul{matmul, count_matmul};
const StepKind kStepMatmulGlu{matmul_glu, count_matmul_glu};
const StepKind kStepRopeStore{rope_store, count_rope};
const StepKind kStepStage{stage, count_stage};
const StepKind kStepMigrate{migrate, count_migrate};
const StepKind kStepObserve{observe, count_observe};
const StepKind kStepAttention{attention, count_attention};
const StepKind kStepAttentionSplit{attention_split, count_split};
const StepKind kStepAttentionMerge{attention_merge, count_heads_kv};
const StepKind kStepHandOver{hand_over, count_rows};
const StepKind kStepRound{round_value, count_rows};

std::size_t step_scratch_bytes(const std::vector<Step>& steps) {
    std::size_t need = 64;
    for (const Step& s : steps) {
        need = std::max(need, float_bytes(s.out.width));
        if (s.fn == attention || s.fn == attention_split || s.fn == observe)
            need = std::max(need, kernels::kAttnScratch + float_bytes(2 * kernels::kAttnMaxRows * (std::size_t{s.head_dim} + 2)));
        need = std::max(need, part_scratch(s) + (s.fn == matmul_glu ? 2 * kGluFloats * sizeof(float) : 0));
    }
    return (need + 127) / 128 * 128;
}

}  // namespace quern::engine
