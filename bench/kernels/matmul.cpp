// SPDX-License-Identifier: Apache-2.0
// Matrix products: every type, width, shape and table, cut into units of work as the engine cuts them.
#include <algorithm>
#include <cstring>

#include "bench/kernels/context.h"
#include "formats/dtype.h"

namespace quern::bench {
namespace {

using kernels::kLanes;

struct Case {
    const kernels::KernelTable* table;
    const QuantInfo* type;
    Shape shape;
    std::uint32_t n_cols;
    unsigned threads;

    bool is_float() const { return type->block_elements == 1; }
    std::uint32_t n_panels() const { return (shape.rows + kLanes - 1) / kLanes; }
    std::string name() const {
        return std::string("matmul/") + table->name + '/' + type->name + '/' + shape.name() + '/' +
               std::to_string(n_cols) + "/threads:" + std::to_string(threads);
    }
};

/// Panels of a matrix with the same 16 random rows again and again: timing does not depend on values, and encoding all
/// rows of the larger types would take longer than measuring them.
void fill_matrix(const Case& c, std::byte* out) {
    const std::size_t row = row_bytes(c.type->type, c.shape.k).value();
    const std::size_t panel = kernels::panel_bytes(c.type->type, c.shape.k);
    const std::vector<float> values = random_floats(std::size_t{kLanes} * c.shape.k);
    std::vector<std::byte> rows(kLanes * row);
    c.type->encode(values.data(), rows.data(), values.size());
    kernels::pack_panel(c.type->type, rows.data(), row, kLanes, c.shape.k, out);
    for (std::uint32_t i = 1; i < c.n_panels(); ++i) std::memcpy(out + i * panel, out, panel);
}

struct Columns {
    engine::Mapping memory;
    std::size_t stride;
};

Result<Columns> make_columns(const Case& c) {
    const std::size_t k = c.shape.k;
    const std::size_t stride = c.is_float() ? (k * sizeof(float) + 63) / 64 * 64 : kernels::ActLayout(k).bytes;
    auto memory = engine::Mapping::create(stride * c.n_cols, "kernels_bench's columns");
    if (!memory) return std::move(memory).error();
    for (std::uint32_t i = 0; i < c.n_cols; ++i) {
        const std::vector<float> x = random_floats(k, i + 2);
        std::byte* out = memory->data() + i * stride;
        if (c.is_float()) {
            std::memcpy(out, x.data(), k * sizeof(float));
        } else {
            c.table->quantize_act(x.data(), 0, c.shape.k, c.shape.k, out);
        }
    }
    return Columns{std::move(*memory), stride};
}

/// One product: the arguments of the whole, and how they are cut.
struct Product {
    kernels::MatmulArgs whole;
    void (*kernel)(const kernels::MatmulArgs&);
    std::uint32_t n_panels, panels_per_unit;
    std::size_t scratch_bytes;  // a thread

    static std::uint32_t units(void* self, std::uint32_t step) {
        const auto* p = static_cast<const Product*>(self);
        return step == 0 ? (p->n_panels + p->panels_per_unit - 1) / p->panels_per_unit : engine::Job::kEnd;
    }
    static void unit(void* self, std::uint32_t, std::uint32_t unit, std::uint32_t thread) {
        const auto* p = static_cast<const Product*>(self);
        kernels::MatmulArgs a = p->whole;
        const std::uint32_t panel = unit * p->panels_per_unit;
        a.w += panel * a.panel_stride;
        a.y += panel * kLanes;
        a.n_rows = std::min(a.n_rows - panel * kLanes, p->panels_per_unit * kLanes);
        if (a.scratch) a.scratch += thread * p->scratch_bytes;
        p->kernel(a);
    }
};

void run(benchmark::State& state, Context& context, const Case& c) {
    const std::size_t panel = kernels::panel_bytes(c.type->type, c.shape.k), matrix = c.n_panels() * panel;
    const std::uint32_t index = kernels::type_index(c.type->type);
    const std::string key = std::string(c.type->name) + c.shape.name();
    const Status filled =
        context.ring.prepare(key, matrix, context.cold_bytes, [&](std::byte* out) { fill_matrix(c, out); });
    if (!filled) return state.SkipWithError(filled.error().message.c_str());
    auto x = make_columns(c);
    if (!x) return state.SkipWithError(x.error().message.c_str());
    const std::size_t scratch_bytes = (c.table->matmul_scratch[index](c.shape.k) + 63) / 64 * 64;
    auto scratch = engine::Mapping::create(scratch_bytes * c.threads, "kernels_bench's scratch");
    if (!scratch) return state.SkipWithError(scratch.error().message.c_str());
    std::vector<float> y(std::size_t{c.n_cols} * c.shape.rows);

    // As the engine does: about eight units a thread.
    const std::uint32_t per_unit = std::clamp((c.n_panels() / (c.threads * 8) + 1) / 2 * 2, 2u, 64u);
    Product p{{nullptr, panel, c.shape.rows, c.shape.k, x->memory.data(), x->stride, c.n_cols, y.data(), c.shape.rows,
               nullptr, false, false, scratch->data()},
              c.table->matmul[index], c.n_panels(), per_unit, scratch_bytes};
    const engine::Job job{Product::units, Product::unit, &p};
    const Work work{static_cast<double>(matrix), 2.0 * c.shape.rows * c.shape.k * c.n_cols,
                    c.is_float() ? Arithmetic::f32 : Arithmetic::int8};
    context.run(state, c.threads, work,
                [&] {
                    p.whole.w = context.ring.next();
                    context.pool->run(job, c.threads);
                },
                [&] { return checksum(y); });
}

}  // namespace

void register_matmul(Context& context) {
    // In this order so that neighbours share their weights.
    for (const QuantInfo& type : all_types())
        for (const Shape& shape : kShapes)
            for (const kernels::KernelTable* table : context.tables)
                for (const std::uint32_t n_cols : kColumns)
                    for (const unsigned threads : context.threads) {
                        const Case c{table, &type, shape, n_cols, threads};
                        add(c.name(), [&context, c](benchmark::State& state) { run(state, context, c); });
                    }
}

}  // namespace quern::bench
