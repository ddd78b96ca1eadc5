// SPDX-License-Identifier: Apache-2.0
#include "engine/backend/vulkan_check.h"

#include <cmath>
#include <set>
#include <utility>

#include "formats/text.h"

namespace quern::engine {
namespace {

using vulkan::Buffer;
using vulkan::MatmulKind;
using vulkan::MemoryKind;

constexpr std::uint32_t kCols = 3, kRows = 24;   // of a matrix: the first, the last, and others between

/// Allowed distance from the exact result, as a part of sum |w x|: what a rounding to F16 (2^-11) or to int8 in blocks (1 / 254) can
/// do to every product, and for floats that of a long sum. What drivers get wrong is off by far more.
double allowed(MatmulKind k) {
    switch (k) {
        case MatmulKind::matvec_dot: case MatmulKind::matmul_dot: return 1.0 / 254;
        case MatmulKind::matmul_coop: return 1.0 / 1024;
        default: return 1e-5;
    }
}

struct Question {
    const RecordArgs& args;
    const gguf::Tensor& tensor;
    const DeviceMatrix& matrix;
    MatmulKind kind;
    std::uint32_t max_cols;
};

Result<Buffer> buffer(vulkan::Device& device, std::size_t bytes) { return device.allocate(bytes, MemoryKind::device, "the check of a kernel"); }

/// y = W x for kCols columns, [kCols][n_rows].
Result<std::vector<float>> ask(const Question& q, const std::vector<float>& x) {
    vulkan::Device& device = *q.args.device;
    const std::uint32_t n_k = q.matrix.n_k, n_rows = q.matrix.n_rows;
    const kernels::ActLayout act(n_k);
    const std::size_t row = (n_k + 3) / 4 * 4;
    auto in = buffer(device, kCols * row * sizeof(float)), rounded = buffer(device, kCols * act.bytes), out = buffer(device, std::size_t{kCols} * n_rows * sizeof(float));
    if (!in) return std::move(in).error();
    if (!rounded) return std::move(rounded).error();
    if (!out) return std::move(out).error();
    for (std::uint32_t c = 0; c < kCols; ++c)
        if (auto s = device.write(*in, c * row * sizeof(float), std::as_bytes(std::span(x).subspan(c * n_k, n_k))); !s) return std::move(s).error();
    auto commands = device.record();
    if (!commands) return std::move(commands).error();
    const auto put = [&](const vulkan::KernelPlan& plan, const auto& push) -> Status {
        auto kernel = device.kernel(plan.module, plan.constants, plan.required_subgroup);
        if (!kernel) return std::move(kernel).error();
        commands->dispatch(**kernel, push, plan.groups(kCols));
        return {};
    };
    const bool takes_rounded = vulkan::takes_rounded(q.kind);
    if (takes_rounded) {
        vulkan::QuantizePush p{in->address(), rounded->address(), 0, n_k, static_cast<vulkan::uint>(row / 4), static_cast<vulkan::uint>(act.bytes / 16), kCols, QUERN_COLS_PUSHED, 0};
        if (auto s = put(vulkan::plan_quantize(n_k), p); !s) return std::move(s).error();
        commands->barrier();
    }
    for (const DevicePanels& part : q.matrix.parts) {
        vulkan::MatmulPush p{};
        p.w = part.address;
        p.x = takes_rounded ? rounded->address() : in->address();
        p.y = out->address() + std::uint64_t{part.first_row} * sizeof(float);
        p.panel_stride = static_cast<vulkan::uint>(q.matrix.panel_stride / 16);
        p.n_rows = part.n_rows; p.n_k = n_k;
        p.x_stride = static_cast<vulkan::uint>(takes_rounded ? act.bytes / 16 : row / 4);
        p.y_stride = n_rows;
        p.n_cols = kCols; p.cols_from = QUERN_COLS_PUSHED;
        if (auto s = put(vulkan::plan_matmul(q.kind, q.matrix.type, part.n_rows, n_k, q.max_cols, vulkan::Glu::none, device.info()), p); !s) return std::move(s).error();
    }
    if (auto s = commands->finish(); !s) return std::move(s).error();
    if (auto s = device.run(*commands, "the check of a kernel"); !s) return std::move(s).error();
    std::vector<float> y(std::size_t{kCols} * n_rows);
    if (auto s = device.read(*out, 0, std::as_writable_bytes(std::span(y))); !s) return std::move(s).error();
    return y;
}

/// What is wrong with the answer; empty: nothing.
std::string judge(const Question& q, const std::vector<float>& x, const std::vector<float>& y) {
    const std::uint32_t n_k = q.matrix.n_k, n_rows = q.matrix.n_rows;
    std::vector<float> w(n_k);
    for (std::uint32_t i = 0; i < std::min(kRows, n_rows); ++i) {
        const std::uint32_t row = static_cast<std::uint32_t>(std::uint64_t{n_rows - 1} * i / std::max(1u, std::min(kRows, n_rows) - 1));
        info(q.tensor.type).decode(q.tensor.data.data() + std::size_t{row} * (q.tensor.data.size() / n_rows), w.data(), n_k);
        for (std::uint32_t c = 0; c < kCols; ++c) {
            double want = 0, size = 0, largest = 0;
            for (std::uint32_t k = 0; k < n_k; ++k) {
                const double product = static_cast<double>(w[k]) * x[c * n_k + k];
                want += product;
                size += std::abs(product);
                largest = std::max(largest, std::abs(static_cast<double>(w[k])));
            }
            const double got = y[std::size_t{c} * n_rows + row];
            // Inputs lie within +-1: rounding a block moves each of its values by 1 / 254 of that at most.
            const double bound = allowed(q.kind) * (vulkan::takes_rounded(q.kind) ? largest * n_k : size) + 1e-30;
            if (!(std::abs(got - want) <= bound))
                return cat("row ", row, " of ", quoted(q.tensor.name), " (", info(q.tensor.type).name, ") times column ", c, " is ", std::to_string(got), ", not ", std::to_string(want));
        }
    }
    return "";
}

}  // namespace

Status check_matrix_kernels(const RecordArgs& args, std::uint32_t max_bucket) {
    std::set<std::pair<std::string, std::vector<std::uint32_t>>> seen;
    for (const Op& op : args.plan->ops)
        for (std::uint32_t i = 0; i < op.n_parts; ++i)
            for (const std::uint32_t cols : {1u, std::min(max_bucket, kOutputRows), max_bucket}) {
                const MatmulPart& part = op.parts[i];
                const gguf::Tensor& t = args.shapes->matrix(part.weight, op.layer);
                const Question q{args, t, args.weights->matrix(part.weight, op.layer), matmul_kind(args, t.type, part.weight, cols), cols};
                const vulkan::KernelPlan plan = vulkan::plan_matmul(q.kind, q.matrix.type, q.matrix.n_rows, q.matrix.n_k, cols, vulkan::Glu::none, args.device->info());
                if (!seen.emplace(plan.module, plan.constants).second) continue;
                std::vector<float> x(std::size_t{kCols} * q.matrix.n_k);
                std::uint32_t state = 1;
                for (float& v : x) v = static_cast<float>(static_cast<std::int32_t>(state = state * 1664525u + 1013904223u)) * 0x1p-31f;
                auto y = ask(q, x);
                if (!y) return std::move(y).error();
                const std::string wrong = judge(q, x, *y);
                if (wrong.empty()) continue;
                const std::string why = cat("kernel ", plan.module, " gives a wrong result: ", wrong);
                if (q.kind == MatmulKind::matmul_coop) args.device->disable(vulkan::kCoopmat, why);
                else if (vulkan::takes_rounded(q.kind)) args.device->disable(vulkan::kIntegerDot, why);
                else return Error{Errc::unsupported, cat(args.device->info().name, " (", args.device->info().driver, ") cannot be used: ", why, "; update its driver or run on the CPU")};
            }
    return {};
}

}  // namespace quern::engine
