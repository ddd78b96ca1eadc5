// SPDX-License-Identifier: Apache-2.0
#include "engine/backend/vulkan_check.h"

#include <cmath>
#include <set>
#include <utility>

#include "formats/text.h"

namespace quern::engine {
namespace check {

std::vector<float> numbers(std::size_t n, std::uint32_t seed) {
    std::vector<float> x(n);
    for (float& v : x) v = static_cast<float>(static_cast<std::int32_t>(seed = seed * 1664525u + 1013904223u)) * 0x1p-31f;
    return x;
}

Result<vulkan::Buffer> buffer(vulkan::Device& device, std::size_t bytes, vulkan::MemoryKind kind) {
    return device.allocate(std::max<std::size_t>(bytes, 16), kind, "the check of a kernel");
}

std::string wrong_result(std::string_view module, std::string_view what) { return cat("kernel ", module, " gives a wrong result: ", what); }

Error refusal(const vulkan::Device& device, const std::string& why) {
    return {Errc::unsupported, cat(device.info().name, " (", device.info().driver, ") cannot be used: ", why, "; update its driver or run on the CPU")};
}

}  // namespace check

namespace {

using vulkan::Glu;
using vulkan::MatmulKind;

constexpr std::uint32_t kCols = 3, kRows = 24;   // of a matrix: the first, the last, and others between

/// check::kFloatError, or what a rounding to F16 (2^-11) or to int8 in blocks (1 / 254) can do to every product.
double allowed(MatmulKind k) {
    switch (k) {
        case MatmulKind::matvec_dot: case MatmulKind::matmul_dot: return 1.0 / 254;
        case MatmulKind::matmul_coop: return 1.0 / 1024;
        default: return check::kFloatError;
    }
}

/// A product by one matrix, or activation(W x) * (W_up x) by two of one type and shape.
struct Question {
    const RecordArgs& args;
    std::uint32_t layer;
    Slot weight, weight_up;   // weight_up: with glu
    Glu glu;
    MatmulKind kind;
    std::uint32_t max_cols;

    const DeviceMatrix& matrix() const { return args.weights->matrix(weight, layer); }
    vulkan::KernelPlan plan(std::uint32_t n_rows) const {
        return vulkan::plan_matmul(kind, matrix().type, n_rows, matrix().n_k, max_cols, glu, args.device->info());
    }
};

/// The answer for kCols columns, [kCols][n_rows].
Result<std::vector<float>> ask(const Question& q, const std::vector<float>& x) {
    vulkan::Device& device = *q.args.device;
    const DeviceMatrix& m = q.matrix();
    const std::uint32_t n_k = m.n_k, n_rows = m.n_rows;
    const kernels::ActLayout act(n_k);
    const std::size_t row = (n_k + 3) / 4 * 4;
    const std::size_t rounded_at = (kCols * row * sizeof(float) + 255) / 256 * 256, out_at = rounded_at + (kCols * act.bytes + 255) / 256 * 256;
    auto memory = check::buffer(device, out_at + std::size_t{kCols} * n_rows * sizeof(float));
    if (!memory) return std::move(memory).error();
    for (std::uint32_t c = 0; c < kCols; ++c)
        if (auto s = device.write(*memory, c * row * sizeof(float), std::as_bytes(std::span(x).subspan(c * n_k, n_k))); !s) return std::move(s).error();
    const std::uint64_t in = memory->address(), rounded = in + rounded_at, out = in + out_at;
    auto commands = device.record();
    if (!commands) return std::move(commands).error();
    check::poison(*commands, *memory, rounded_at);
    commands->barrier();
    const auto put = [&](const vulkan::KernelPlan& plan, const auto& push) -> Status {
        auto kernel = device.kernel(plan.module, plan.constants, plan.required_subgroup);
        if (!kernel) return std::move(kernel).error();
        commands->dispatch(**kernel, push, plan.groups(kCols));
        return {};
    };
    const bool takes_rounded = vulkan::takes_rounded(q.kind);
    if (takes_rounded) {
        vulkan::QuantizePush p{in, rounded, 0, n_k, static_cast<vulkan::uint>(row / 4), static_cast<vulkan::uint>(act.bytes / 16), kCols, QUERN_COLS_PUSHED, 0};
        if (auto s = put(vulkan::plan_quantize(n_k), p); !s) return std::move(s).error();
        commands->barrier();
    }
    for (std::size_t i = 0; i < m.parts.size(); ++i) {
        const DevicePanels& part = m.parts[i];
        vulkan::MatmulPush p{};
        p.w = part.address;
        if (q.glu != Glu::none) p.w_up = q.args.weights->matrix(q.weight_up, q.layer).parts[i].address;
        p.x = takes_rounded ? rounded : in;
        p.y = out + std::uint64_t{part.first_row} * sizeof(float);
        p.panel_stride = static_cast<vulkan::uint>(m.panel_stride / 16);
        p.n_rows = part.n_rows; p.n_k = n_k;
        p.x_stride = static_cast<vulkan::uint>(takes_rounded ? act.bytes / 16 : row / 4);
        p.y_stride = n_rows;
        p.n_cols = kCols; p.cols_from = QUERN_COLS_PUSHED;
        if (auto s = put(q.plan(part.n_rows), p); !s) return std::move(s).error();
    }
    if (auto s = commands->finish(); !s) return std::move(s).error();
    if (auto s = device.run(*commands, "the check of a kernel"); !s) return std::move(s).error();
    std::vector<float> y(std::size_t{kCols} * n_rows);
    if (auto s = device.read(*memory, out_at, std::as_writable_bytes(std::span(y))); !s) return std::move(s).error();
    return y;
}

struct Bounded { double value, bound; };

/// Row `row` of a matrix times x, from the file.
Bounded product(const Question& q, Slot weight, std::uint32_t row, const float* x, std::vector<float>& w) {
    const gguf::Tensor& t = q.args.shapes->matrix(weight, q.layer);
    const std::uint32_t n_k = q.matrix().n_k;
    w.resize(n_k);
    info(t.type).decode(t.data.data() + std::size_t{row} * (t.data.size() / q.matrix().n_rows), w.data(), n_k);
    double value = 0, size = 0, largest = 0;
    for (std::uint32_t k = 0; k < n_k; ++k) {
        const double p = static_cast<double>(w[k]) * x[k];
        value += p;
        size += std::abs(p);
        largest = std::max(largest, std::abs(static_cast<double>(w[k])));
    }
    // Inputs lie within +-1: rounding a block moves each of its values by 1 / 254 of that at most.
    return {value, allowed(q.kind) * (vulkan::takes_rounded(q.kind) ? largest * n_k : size) + 1e-30};
}

double activate(Glu glu, double x) {
    return glu == Glu::swiglu ? x / (1 + std::exp(-x)) : 0.5 * x * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}

/// What is wrong with the answer; empty: nothing.
std::string judge(const Question& q, const std::vector<float>& x, const std::vector<float>& y) {
    const std::uint32_t n_k = q.matrix().n_k, n_rows = q.matrix().n_rows;
    std::vector<float> w;
    for (std::uint32_t i = 0; i < std::min(kRows, n_rows); ++i) {
        const std::uint32_t row = static_cast<std::uint32_t>(std::uint64_t{n_rows - 1} * i / std::max(1u, std::min(kRows, n_rows) - 1));
        for (std::uint32_t c = 0; c < kCols; ++c) {
            Bounded want = product(q, q.weight, row, x.data() + c * n_k, w);
            if (q.glu != Glu::none) {
                const Bounded up = product(q, q.weight_up, row, x.data() + c * n_k, w);
                const double gate = activate(q.glu, want.value);   // its slope is below 1.2
                want = {gate * up.value, 1.2 * want.bound * (std::abs(up.value) + up.bound) + std::abs(gate) * up.bound + check::kFloatError * std::abs(gate * up.value)};
            }
            const double got = y[std::size_t{c} * n_rows + row];
            const gguf::Tensor& t = q.args.shapes->matrix(q.weight, q.layer);
            if (!(std::abs(got - want.value) <= want.bound))
                return cat("row ", row, " of ", quoted(t.name), " (", info(t.type).name, ") times column ", c, " is ", std::to_string(got), ", not ", std::to_string(want.value));
        }
    }
    return "";
}

}  // namespace

Status check_matrix_kernels(const RecordArgs& args, std::uint32_t max_bucket) {
    std::set<std::pair<std::string, std::vector<std::uint32_t>>> seen;
    const Glu activation = args.hparams->arch->activation == Activation::geglu ? Glu::geglu : Glu::swiglu;
    const auto check_one = [&](const Op& op, std::uint32_t part, std::uint32_t bucket, Glu glu) -> Status {
        const std::uint32_t cols = matmul_cols(*args.plan, op.in, bucket);
        const Slot weight = op.parts[part].weight;
        const Question q{args, op.layer, weight, op.parts[1].weight, glu, matmul_kind(args, args.shapes->matrix(weight, op.layer).type, weight, cols), cols};
        bool is_new = false;
        for (const DevicePanels& p : q.matrix().parts) {
            const vulkan::KernelPlan plan = q.plan(p.n_rows);
            is_new |= seen.emplace(plan.module, plan.constants).second;
        }
        if (!is_new) return {};
        const std::vector<float> x = check::numbers(std::size_t{kCols} * q.matrix().n_k, 1);
        auto y = ask(q, x);
        if (!y) return std::move(y).error();
        const std::string wrong = judge(q, x, *y);
        if (wrong.empty()) return {};
        const std::string why = check::wrong_result(q.plan(q.matrix().n_rows).module, wrong);
        if (q.kind == MatmulKind::matmul_coop) args.device->disable(vulkan::kCoopmat, why);
        else if (vulkan::takes_rounded(q.kind)) args.device->disable(vulkan::kIntegerDot, why);
        else return check::refusal(*args.device, why);
        return {};
    };
    // Again once a feature is taken away: others have to do its work then. There are two.
    const auto features = [&] { return args.device->has(vulkan::kCoopmat) + 2 * args.device->has(vulkan::kIntegerDot); };
    for (int before = -1; before != features();) {
        before = features();
        for (const Op& op : args.plan->ops)
            for (const std::uint32_t bucket : kBuckets) {
                const std::uint32_t n = std::min(bucket, max_bucket);
                const bool fused = op.kind == OpKind::matmul_glu && fuses_glu(args, op, n);
                for (std::uint32_t i = 0; i < (fused ? 1 : op.n_parts); ++i)
                    if (auto s = check_one(op, i, n, fused ? activation : Glu::none); !s) return s;
                if (bucket >= max_bucket) break;
            }
    }
    return {};
}

}  // namespace quern::engine
