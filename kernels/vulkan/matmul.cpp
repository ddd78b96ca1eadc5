// SPDX-License-Identifier: Apache-2.0
#include "kernels/vulkan/matmul.h"

#include <algorithm>
#include <bit>
#include <cctype>

namespace quern::vulkan {
namespace {

constexpr std::uint32_t kPanelRows = 16, kBlock = 32;
/// Threads that a big GPU wants to have under way (H200: 132 multiprocessors of 2048 threads, half of that).
constexpr std::uint32_t kWantedThreads = 131072;

std::string module_name(std::string_view kernel, DType t) {
    std::string name(kernel);
    name += '_';
    for (const char* c = info(t).name; *c; ++c) name += static_cast<char>(std::tolower(static_cast<unsigned char>(*c)));
    return name;
}

bool is_built(std::string_view module) {
    return std::any_of(modules().begin(), modules().end(), [&](const ModuleInfo& m) { return m.name == module; });
}

/// Blocks whose loads a thread has under way at once: up to 64 bytes (16 registers) for one column, less where sums for
/// more columns take the registers and arithmetic the time. Divides the number of blocks.
std::uint32_t unroll(DType t, std::uint32_t n_k, std::uint32_t n_sums) {
    if (n_k % kBlock != 0) return 1;
    const std::uint32_t codes = t == DType::F32 ? 4 : t == DType::F16 || t == DType::BF16 || t == DType::Q8_0 ? 2 : 1;
    const std::uint32_t most = std::max(1u, 4 / codes / std::bit_ceil(n_sums));
    return std::min(most, 1u << std::countr_zero(n_k / kBlock));
}

void plan_matvec(KernelPlan& plan, DType t, std::uint32_t n_rows, std::uint32_t n_k, std::uint32_t max_cols, Glu glu,
                 const DeviceInfo& device) {
    const std::uint32_t n_panels = (n_rows + kPanelRows - 1) / kPanelRows, n_matrices = glu == Glu::none ? 1 : 2;
    const std::uint32_t cols = std::bit_ceil(std::clamp(max_cols, 1u, kMatvecCols));
    const std::uint32_t steps = unroll(t, n_k, n_matrices * cols),
                        n_runs = (n_k + kBlock * steps - 1) / (kBlock * steps);
    const std::uint32_t most = std::min(256u, std::max(64u, device.max_invocations)) / 16;  // teams of a workgroup
    // As many teams on a panel as fill the device, but none without a run of its own.
    const std::uint32_t wanted = std::bit_ceil(std::max(4u, kWantedThreads / 16 / n_panels));
    const std::uint32_t splits = std::min({wanted, most, std::bit_floor(n_runs)});
    const std::uint32_t panels = std::min(std::max(1u, 4 / splits), std::bit_ceil(n_panels));
    plan.constants = {16 * splits * panels,       splits, panels, cols, steps, n_matrices, glu == Glu::geglu ? 1u : 0u,
                      n_k % kBlock == 0 ? 1u : 0u};
    plan.groups_x = (n_panels + panels - 1) / panels;
    plan.cols_per_group = cols;
}

/// Tiles of 128 x 64, or 64 x 32 where that leaves a device idle or is more than it can have.
void plan_tiles(KernelPlan& plan, std::uint32_t n_rows, std::uint32_t max_cols, const DeviceInfo& device) {
    const std::uint32_t tiles = (n_rows + 127) / 128 * ((max_cols + 63) / 64);
    const bool large = device.max_invocations >= 256 && device.shared_bytes >= 32768 && max_cols > 32 &&
                       tiles * 256 >= kWantedThreads / 4;
    const std::uint32_t row_threads = large ? 16 : 8, col_threads = large ? 16 : 8;
    plan.constants = {row_threads * col_threads, row_threads, col_threads};
    plan.groups_x = (n_rows + 8 * row_threads - 1) / (8 * row_threads);
    plan.cols_per_group = 4 * col_threads;
}

/// Tiles of 128 x 128 by eight subgroups, or 64 x 64 by two.
void plan_coop(KernelPlan& plan, std::uint32_t n_rows, std::uint32_t max_cols, const DeviceInfo& device) {
    const std::uint32_t tiles = (n_rows + 127) / 128 * ((max_cols + 127) / 128);
    const bool large = device.max_invocations >= 8 * device.subgroup && max_cols > 64 && tiles >= 64;
    const std::uint32_t rows = large ? 2 : 1, cols = large ? 4 : 64 / std::min(device.subgroup, 32u);
    plan.constants = {device.subgroup * rows * cols, device.subgroup, rows, cols};
    plan.required_subgroup = device.subgroup;
    plan.groups_x = (n_rows + 64 * rows - 1) / (64 * rows);
    plan.cols_per_group = 32 * cols;
}

}  // namespace

const char* kernel_name(MatmulKind kind) {
    switch (kind) {
        case MatmulKind::matvec:
            return "matvec";
        case MatmulKind::matvec_dot:
            return "matvec_dot";
        case MatmulKind::matmul:
            return "matmul";
        case MatmulKind::matmul_dot:
            return "matmul_dot";
        case MatmulKind::matmul_coop:
            return "matmul_coop";
    }
    return "";
}

MatmulKind choose_matmul(DType t, std::uint32_t max_cols, std::uint32_t features, bool rounded) {
    const bool dot = rounded && (features & kIntegerDot) != 0 && !is_float(t);
    if (max_cols <= kMatvecCols) return dot ? MatmulKind::matvec_dot : MatmulKind::matvec;
    constexpr std::uint32_t kMatrixUnits = kCoopmat | kFloat16 | kSubgroupSize;
    if ((features & kMatrixUnits) == kMatrixUnits && is_built(module_name("matmul_coop", t)))
        return MatmulKind::matmul_coop;
    return dot ? MatmulKind::matmul_dot : MatmulKind::matmul;
}

KernelPlan plan_matmul(MatmulKind kind, DType t, std::uint32_t n_rows, std::uint32_t n_k, std::uint32_t max_cols,
                       Glu glu, const DeviceInfo& device) {
    KernelPlan plan;
    plan.module = module_name(kernel_name(kind), t);
    switch (kind) {
        case MatmulKind::matvec:
        case MatmulKind::matvec_dot:
            plan_matvec(plan, t, n_rows, n_k, max_cols, glu, device);
            break;
        case MatmulKind::matmul:
        case MatmulKind::matmul_dot:
            plan_tiles(plan, n_rows, max_cols, device);
            break;
        case MatmulKind::matmul_coop:
            plan_coop(plan, n_rows, max_cols, device);
            break;
    }
    return plan;
}

KernelPlan plan_embed(DType t, std::uint32_t n_k) {
    KernelPlan plan;
    plan.module = module_name("embed", t);
    plan.groups_x = ((n_k + kBlock - 1) / kBlock * 4 + 63) / 64;  // a thread takes a quarter of a block
    return plan;
}

KernelPlan plan_quantize(std::uint32_t n) {
    KernelPlan plan;
    plan.module = "quantize_act";
    plan.groups_x = (n / kBlock + 63) / 64;
    return plan;
}

}  // namespace quern::vulkan
