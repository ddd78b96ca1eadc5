// SPDX-License-Identifier: Apache-2.0
// gpu_kernels: each matrix kernel of a Vulkan device by itself, beside what the device can do at most.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/roofline/device.h"
#include "formats/dtype.h"
#include "kernels/table.h"
#include "kernels/vulkan/matmul.h"
#include "tools/common/options.h"
#include "tools/common/process.h"

namespace quern::bench {
namespace {

using Json = nlohmann::ordered_json;
using namespace vulkan;

constexpr const char* kProgram = "gpu_kernels";
/// Both halves of a word as F16, and as BF16: small, positive, finite; as bytes codes and scales of any type.
constexpr std::uint32_t kWeightWord = 0x2c2c2c2cu, kActivationWord = 0x3c003c00u;

struct Flags {
    std::string device = "auto", types;
    std::uint32_t rows = 4096, k = 4096, repeats = 20;
    std::uint64_t megabytes = 1024;  // of weights, so that no cache holds them from one product to the next
    bool json = false, quick = false;
};

/// Weights, activations and results, made once for the largest product.
struct Memory {
    Buffer w, x, y;
};

Result<Memory> make_memory(Device& device, const Flags& f) {
    Memory m;
    const std::size_t bytes = std::min<std::uint64_t>(f.megabytes << 20, device.info().max_allocation);
    auto w = device.allocate(bytes, MemoryKind::device, "weights");
    if (!w) return w.error();
    auto x = device.allocate(std::size_t{512} * f.k * 4, MemoryKind::device, "activations");
    if (!x) return x.error();
    auto y = device.allocate(std::size_t{512} * f.rows * 4, MemoryKind::device, "results");
    if (!y) return y.error();
    m = {std::move(*w), std::move(*x), std::move(*y)};
    auto c = device.record();
    if (!c) return c.error();
    c->fill(m.w, 0, bytes / 4 * 4, kWeightWord);
    c->fill(m.x, 0, m.x.size(), kActivationWord);
    if (Status s = c->finish(); !s) return s.error();
    if (Status s = device.run(*c, "filling"); !s) return s.error();
    return m;
}

/// Median seconds of one product. Each takes the next copy of the matrix in m.w.
Result<double> time_product(Device& device, const Memory& m, const Flags& f, MatmulKind kind, DType t,
                            std::uint32_t n_cols) {
    const std::size_t stride = kernels::panel_bytes(t, f.k), bytes = (f.rows + 15) / 16 * stride;
    const std::size_t n_copies = std::max<std::size_t>(1, m.w.size() / bytes);
    if (bytes > m.w.size()) return Error{Errc::invalid_argument, "the matrix is larger than --megabytes"};
    const KernelPlan plan = plan_matmul(kind, t, f.rows, f.k, n_cols, Glu::none, device.info());
    const auto kernel = device.kernel(plan.module, plan.constants, plan.required_subgroup);
    if (!kernel) return kernel.error();
    auto c = device.record();
    if (!c) return c.error();
    MatmulPush push{};
    push.x = m.x.address();
    push.y = m.y.address();
    push.panel_stride = static_cast<std::uint32_t>(stride / 16);
    push.n_rows = f.rows;
    push.n_k = f.k;
    push.x_stride = takes_rounded(kind) ? static_cast<std::uint32_t>(kernels::ActLayout(f.k).bytes / 16) : f.k / 4;
    push.y_stride = f.rows;
    push.n_cols = n_cols;
    const std::uint32_t warm = 3;
    for (std::uint32_t i = 0; i < warm + f.repeats; ++i) {
        push.w = m.w.address() + i % n_copies * bytes;
        if (i >= warm) c->timestamp();
        c->dispatch(**kernel, push, plan.groups(n_cols));
        c->barrier();
    }
    c->timestamp();
    if (Status s = c->finish(); !s) return s.error();
    if (Status s = device.run(*c, plan.module); !s) return s.error();
    auto at = device.timestamps(*c);
    if (!at) return at.error();
    std::vector<double> took;
    for (std::size_t i = 1; i < at->size(); ++i) took.push_back((*at)[i] - (*at)[i - 1]);
    std::nth_element(took.begin(), took.begin() + static_cast<std::ptrdiff_t>(took.size() / 2), took.end());
    return took[took.size() / 2];
}

bool possible(const Device& device, MatmulKind kind, DType t) {
    const bool floats = info(t).block_elements == 1;
    if (takes_rounded(kind)) return !floats && device.has(kIntegerDot);
    return kind != MatmulKind::matmul_coop || (device.has(kCoopmat) && device.has(kSubgroupSize));
}

Status measure_all(Device& device, const Flags& f, const DeviceRoofline& roof, Json& out) {
    const auto memory = make_memory(device, f);
    if (!memory) return memory.error();
    for (const QuantInfo& q : all_types()) {
        if (!f.types.empty() && ("," + f.types + ",").find("," + std::string(q.name) + ",") == std::string::npos)
            continue;
        if (f.k % q.block_elements != 0) continue;
        for (const MatmulKind kernel : kMatmulKinds) {
            if (!possible(device, kernel, q.type)) continue;
            const bool few = is_matvec(kernel);
            for (const std::uint32_t n_cols :
                 few ? std::vector<std::uint32_t>{1, 2, 4, 8, 16} : std::vector<std::uint32_t>{64, 512}) {
                const auto seconds = time_product(device, *memory, f, kernel, q.type, n_cols);
                if (!seconds) return seconds.error();
                const double bytes = static_cast<double>((f.rows + 15) / 16 * kernels::panel_bytes(q.type, f.k));
                const double gb_s = bytes / *seconds / 1e9, gop_s = 2.0 * f.rows * f.k * n_cols / *seconds / 1e9;
                const double peak = kernel == MatmulKind::matmul_coop ? roof.coopmat_gop_s
                                    : takes_rounded(kernel)           ? roof.int8_gop_s
                                                                           : roof.f32_gop_s;
                if (!f.json)
                    std::printf("%-6s %-12s %4u columns %10.1f us %8.1f GB/s (%3.0f%%) %9.0f GOP/s (%3.0f%%)\n", q.name,
                                kernel_name(kernel), n_cols, *seconds * 1e6, gb_s, 100 * gb_s / roof.read_gb_s, gop_s,
                                peak ? 100 * gop_s / peak : 0.0);
                out.push_back({{"type", q.name},
                               {"kernel", kernel_name(kernel)},
                               {"n_cols", n_cols},
                               {"seconds", *seconds},
                               {"gb_s", gb_s},
                               {"gop_s", gop_s}});
            }
        }
    }
    return {};
}

int run(const Flags& f) {
    DeviceOptions options;
    if (f.device != "auto") options.device = f.device;
    options.force_integer_dot = true;
    options.log = [](const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); };
    const auto device = Device::create(options);
    if (!device) return tools::report(kProgram, device.error());
    const auto roof = measure(**device, f.quick);
    if (!roof) return tools::report(kProgram, roof.error());
    if (!f.json)
        std::printf("%s: read %.0f GB/s, F32 %.0f, int8 %.0f, F16 matrix %.0f GOP/s; matrices of %u x %u\n",
                    (*device)->info().name.c_str(), roof->read_gb_s, roof->f32_gop_s, roof->int8_gop_s,
                    roof->coopmat_gop_s, f.rows, f.k);
    Json rows = Json::array();
    if (const Status s = measure_all(**device, f, *roof, rows); !s) return tools::report(kProgram, s.error());
    if (f.json)
        std::printf("%s\n", Json{{"device", (*device)->info().name},
                                 {"read_gb_s", roof->read_gb_s},
                                 {"f32_gop_s", roof->f32_gop_s},
                                 {"int8_gop_s", roof->int8_gop_s},
                                 {"coopmat_gop_s", roof->coopmat_gop_s},
                                 {"rows", f.rows},
                                 {"k", f.k},
                                 {"kernels", std::move(rows)}}
                                .dump(2)
                                .c_str());
    return tools::kExitOk;
}

}  // namespace
}  // namespace quern::bench

int main(int argc, char** argv) {
    using namespace quern;
    bench::Flags f;
    CLI::App app("Times each matrix kernel of a Vulkan device, beside its bandwidth and peaks.", bench::kProgram);
    tools::describe(app);
    app.add_option("--device", f.device, "Part of a device's name, or its index; default: the first GPU");
    app.add_option("--types", f.types, "Weight types, separated by commas; default: all");
    app.add_option("--rows", f.rows, "Rows of the matrix")->check(CLI::Range(16, 1 << 20));
    app.add_option("--k", f.k, "Columns of the matrix, a multiple of 256")->check(CLI::Range(256, 1 << 20));
    app.add_option("--repeats", f.repeats, "Products timed, of which the median counts")->check(CLI::Range(1, 1000));
    app.add_option("--megabytes", f.megabytes, "Memory for copies of the matrix")->check(CLI::Range(1, 1 << 16));
    app.add_flag("--json", f.json, "Print JSON");
    app.add_flag("--quick", f.quick, "A short roofline");
    if (const auto code = tools::parse(app, argc, argv)) return *code;
    f.k = f.k / 256 * 256;
    return bench::run(f);
}
