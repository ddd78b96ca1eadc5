// SPDX-License-Identifier: Apache-2.0
#include "engine/model/weights.h"

#include <string>

namespace quern::engine {
namespace {

std::string shape_text(std::uint64_t rows, std::uint64_t cols) {
    return cols == 1 ? "[" + std::to_string(rows) + "]" : "[" + std::to_string(rows) + " rows x " + std::to_string(cols) + "]";
}

Result<const gguf::Tensor*> find(const gguf::File& f, const Hparams& h, const TensorRule& rule, std::uint32_t layer) {
    const std::string name = rule.slot < kFirstLayerSlot ? rule.name : "blk." + std::to_string(layer) + "." + rule.name;
    const gguf::Tensor* t = f.find_tensor(name);
    if (!t) {
        if (!rule.required) return static_cast<const gguf::Tensor*>(nullptr);
        return Error{Errc::bad_file, f.path() + ": tensor '" + name + "' is missing, which architecture '" + h.arch->name + "' needs; is the file complete?"};
    }
    const bool vector = rule.cols == Dim::one;
    const std::uint64_t rows = h.dim(rule.rows, layer), cols = h.dim(rule.cols, layer);
    const std::uint64_t have_rows = vector ? t->ne[0] : t->ne[1], have_cols = vector ? t->ne[1] : t->ne[0];
    if (have_rows != rows || have_cols != cols || t->ne[2] != 1 || t->ne[3] != 1)
        return Error{Errc::bad_file, f.path() + ": tensor '" + name + "' is " + shape_text(have_rows, have_cols) + (t->ne[2] * t->ne[3] != 1 ? " and more dimensions" : "") + ", the metadata asks for " + shape_text(rows, cols)};
    if (vector && !is_float(t->type))
        return Error{Errc::unsupported, f.path() + ": tensor '" + name + "' is a vector of type " + info(t->type).name + "; vectors are F32, F16 or BF16"};
    return t;
}

}  // namespace

Result<Weights> check_weights(const gguf::File& f, const Hparams& h) {
    Weights w;
    w.layers.assign(h.n_layer, {});
    for (const TensorRule& rule : h.arch->tensors) {
        const bool global = rule.slot < kFirstLayerSlot;
        for (std::uint32_t l = 0; l < (global ? 1 : h.n_layer); ++l) {
            auto t = find(f, h, rule, l);
            if (!t) return std::move(t).error();
            (global ? w.global : w.layers[l])[static_cast<std::size_t>(rule.slot)] = *t;
        }
    }
    return w;
}

std::vector<float> read_vector(const gguf::Tensor& t) {
    std::vector<float> out(t.n_elements());
    info(t.type).decode(t.data.data(), out.data(), out.size());
    return out;
}

}  // namespace quern::engine
