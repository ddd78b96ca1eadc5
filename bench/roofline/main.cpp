// SPDX-License-Identifier: Apache-2.0
// roofline: what this machine can do at most, for a person or as JSON.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/roofline/device.h"
#include "bench/roofline/roofline.h"
#include "engine/core/memory.h"
#include "engine/core/topology.h"
#include "kernels/table.h"
#include "tools/common/options.h"
#include "tools/common/process.h"

namespace quern::bench {
namespace {

using Json = nlohmann::ordered_json;
using tools::fixed;

constexpr const char* kProgram = "roofline";

std::string cpu_name() {
    char buffer[64];
    return std::string(kernels::cpu_name(buffer, sizeof buffer));
}

Json to_json(const Roofline& r) {
    Json reads = Json::array(), peaks = Json::array();
    for (const ReadRate& x : r.reads)
        reads.push_back({{"pattern", x.pattern}, {"huge_pages", x.huge_pages}, {"gb_s", x.gb_s}});
    for (const PeakRate& x : r.peaks)
        peaks.push_back({{"name", x.name}, {"arithmetic", to_string(x.arithmetic)}, {"gop_s", x.gop_s}});
    return {{"n_threads", r.threads},
            {"read_gb_s", r.read_gb_s},
            {"int8_gop_s", r.int8_gop_s},
            {"bf16_gop_s", r.bf16_gop_s},
            {"f32_gop_s", r.f32_gop_s},
            {"reads", std::move(reads)},
            {"peaks", std::move(peaks)},
            {"buffer_bytes", r.buffer_bytes},
            {"checksum", r.checksum}};
}

void line(const std::string& name, double value, const char* unit, const std::string& note) {
    std::printf("  %-22s %9s %s%s\n", name.c_str(), fixed(value, value < 100 ? 1 : 0).c_str(), unit, note.c_str());
}

void print(const Roofline& r) {
    std::printf("%u thread%s\n", r.threads, r.threads == 1 ? "" : "s");
    for (const PeakRate& p : r.peaks) {
        const bool best = p.gop_s == r.peak(p.arithmetic);
        line(p.name, p.gop_s, "GOP/s", best ? std::string("  ") + to_string(p.arithmetic) + " peak" : "");
    }
    for (const ReadRate& x : r.reads)
        line(x.huge_pages ? "read, huge pages" : "read", x.gb_s, "GB/s ",
             "  " + x.pattern + (x.gb_s == r.read_gb_s ? "  <- best" : ""));
    std::printf("  buffer %s, checksum %llu\n", engine::format_bytes(r.buffer_bytes).c_str(),
                static_cast<unsigned long long>(r.checksum));
}

Json to_json(const vulkan::DeviceInfo& info, const DeviceRoofline& r, bool quick) {
    Json rates = Json::array();
    for (const DeviceRate& x : r.rates)
        rates.push_back({{"pattern", x.pattern}, {"read_gb_s", x.read_gb_s}, {"copy_gb_s", x.copy_gb_s}});
    return {{"device", info.name},
            {"driver", info.driver},
            {"quick", quick},
            {"read_gb_s", r.read_gb_s},
            {"copy_gb_s", r.copy_gb_s},
            {"f32_gop_s", r.f32_gop_s},
            {"f16_gop_s", r.f16_gop_s},
            {"int8_gop_s", r.int8_gop_s},
            {"coopmat_gop_s", r.coopmat_gop_s},
            {"rates", std::move(rates)},
            {"missing", r.missing},
            {"buffer_bytes", r.buffer_bytes},
            {"gpu_clock", r.gpu_clock}};
}

void print(const vulkan::DeviceInfo& info, const DeviceRoofline& r) {
    std::printf("%s, %s\n", info.name.c_str(), info.driver.c_str());
    const std::pair<const char*, double> peaks[] = {
        {"F32", r.f32_gop_s}, {"F16", r.f16_gop_s}, {"int8 dot product", r.int8_gop_s}, {"F16 matrix", r.coopmat_gop_s}};
    for (const auto& [name, value] : peaks)
        if (value > 0) line(name, value, "GOP/s", "");
    for (const DeviceRate& x : r.rates) {
        line("read", x.read_gb_s, "GB/s ", "  " + x.pattern + (x.read_gb_s == r.read_gb_s ? "  <- best" : ""));
        line("copy", x.copy_gb_s, "GB/s ", "  " + x.pattern + (x.copy_gb_s == r.copy_gb_s ? "  <- best" : ""));
    }
    for (const std::string& what : r.missing) std::printf("  not measured: %s\n", what.c_str());
    std::printf("  two buffers of %s, timed by the %s\n", engine::format_bytes(r.buffer_bytes).c_str(),
                r.gpu_clock ? "device" : "host");
}

struct Flags {
    std::vector<unsigned> threads;
    bool quick = false, json = false;
    std::string memory, device;
};

bool flush() { return std::cout.flush() && std::fflush(stdout) == 0; }

int run_device(const Flags& f) {
    vulkan::DeviceOptions options;
    options.device = f.device == "auto" ? "" : f.device;
    options.force_integer_dot = true;  // a peak is a peak, be it low
    Result<std::unique_ptr<vulkan::Device>> device = vulkan::Device::create(options);
    if (!device) return tools::report(kProgram, device.error());
    tools::Progress progress;
    progress.show((*device)->info().name, 0, 0);
    const Result<DeviceRoofline> r = measure(**device, f.quick);
    progress.clear();
    if (!r) return tools::report(kProgram, r.error());
    if (f.json) {
        std::cout << to_json((*device)->info(), *r, f.quick).dump(2) << '\n';
    } else {
        print((*device)->info(), *r);
    }
    return flush() ? tools::kExitOk : tools::kExitError;
}

int run(Flags f) {
    RooflineOptions options;
    options.quick = f.quick;
    options.small_pages = true;
    if (!f.memory.empty()) {
        const Result<std::uint64_t> bytes = engine::parse_bytes(f.memory);
        if (!bytes) return tools::report(kProgram, bytes.error());
        options.max_bytes = *bytes;
    }
    if (f.threads.empty()) {
        f.threads = {1};
        if (const unsigned all = engine::read_topology().n_threads; all > 1) f.threads.push_back(all);
    }
    tools::Progress progress;
    Json rows = Json::array();
    if (!f.json) std::printf("%s\n", cpu_name().c_str());
    for (const unsigned n : f.threads) {
        options.on_progress = [&](std::string_view what) {
            progress.show(std::to_string(n) + " threads: " + std::string(what), 0, 0);
        };
        const auto probe = RooflineProbe::create(n, options);
        const Result<Roofline> r = probe ? (*probe)->measure(n) : probe.error();
        progress.clear();
        if (!r) return tools::report(kProgram, r.error());
        if (f.json) {
            rows.push_back(to_json(*r));
        } else {
            print(*r);
        }
    }
    if (f.json) {
        const Json all = {{"cpu", cpu_name()}, {"quick", f.quick}, {"rooflines", std::move(rows)}};
        std::cout << all.dump(2) << '\n';
    }
    return flush() ? tools::kExitOk : tools::kExitError;
}

}  // namespace
}  // namespace quern::bench

int main(int argc, char** argv) {
    quern::bench::Flags f;
    CLI::App app("Measures what this machine can do at most: reading memory, int8, BF16 and float arithmetic.",
                 quern::bench::kProgram);
    quern::tools::describe(app);
    app.add_option("-t,--threads", f.threads, "Thread counts; without it 1 and one a physical core")->delimiter(',')
        ->check(CLI::Range(1, 1024))->type_name("N,...")->allow_extra_args(false)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    app.add_option("--memory", f.memory, "Most memory to read from, as in 512M; what fits in a cache tells its speed")
        ->type_name("SIZE");
    app.add_option("--device", f.device, "A Vulkan device instead of the CPU: part of its name, its index, or auto")
        ->type_name("NAME")->excludes("--threads")->excludes("--memory");
    app.add_flag("--quick", f.quick, "Short runs over little memory: shows that it works, the figures mean little");
    app.add_flag("--json", f.json, "Print JSON");
    if (const auto code = quern::tools::parse(app, argc, argv)) return *code;
    return f.device.empty() ? quern::bench::run(std::move(f)) : quern::bench::run_device(f);
}
