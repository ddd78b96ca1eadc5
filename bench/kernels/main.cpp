// SPDX-License-Identifier: Apache-2.0
// kernels_bench: every kernel by itself, as a share of what this machine can do. docs/benchmarks.md has the columns.
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <string>

#include "bench/kernels/context.h"
#include "engine/core/topology.h"

namespace quern::bench {
namespace {

constexpr const char* kHelp =
    "kernels_bench [--threads=N] [--quick] [--benchmark_...]\n"
    "  --threads=N   the larger of the two thread counts (1 and N); without it one a physical core\n"
    "  --quick       short roofline, weights that caches may hold: shows that it works, the figures mean little\n"
    "Without --benchmark_filter a selection that takes about a minute; --benchmark_filter=. runs everything (hours).\n"
    "Names: matmul/TABLE/TYPE/ROWSxK/COLUMNS/threads:N, rms_norm/TABLE/N, attention/TABLE/FORMAT/depth:N/tokens:N,\n"
    "sample/WHICH/VOCABULARY, step/WHAT/threads:N, sgemm/LIBRARY/ROWSxK/COLUMNS/threads:N; --benchmark_list_tests prints\n"
    "them.\n\n";

struct Flags {
    unsigned threads = 0;
    bool quick = false, filtered = false, timed = false, only_list = false;
    std::vector<std::string> rest;  // for Google Benchmark
};

bool parse(int argc, char** argv, Flags& f) {
    for (int i = 0; i < argc; ++i) {
        const std::string_view a = argv[i];
        constexpr std::string_view kThreads = "--threads=";
        if (a == "--quick") {
            f.quick = true;
        } else if (a.starts_with(kThreads)) {
            const std::string_view text = a.substr(kThreads.size());
            const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), f.threads);
            constexpr unsigned kMost = engine::ThreadPool::kMaxThreads;
            if (error != std::errc() || end != text.data() + text.size() || f.threads < 1 || f.threads > kMost) {
                std::fprintf(stderr, "kernels_bench: %s: not a number of threads (1 to %u)\n", argv[i], kMost);
                return false;
            }
        } else {
            f.filtered |= a.starts_with("--benchmark_filter");
            f.timed |= a.starts_with("--benchmark_min_time");
            f.only_list |= a.starts_with("--benchmark_list_tests") && !a.ends_with("=false");
            f.rest.emplace_back(a);
        }
    }
    if (!f.filtered && !f.timed) f.rest.emplace_back("--benchmark_min_time=0.2");
    return true;
}

/// The best table on one shape with types, widths and kernels that tell most.
std::string default_filter(const Context& c) {
    const std::string table = c.tables.front()->name;
    const std::string types = "(F16|Q4_0|Q4_1|Q8_0|Q4_K|Q6_K)";
    return "^(matmul/" + table + '/' + types + "/2048x8192/(1|8|128)/|"
           "(rms_norm|rope_.*|swiglu|quantize_act.*|argmax|attention)/" + table + "/|"
           "sample/|step/|sgemm/.*/2048x8192/(1|8|128)/)";
}

Status prepare(const Flags& f, Context& c) {
    const std::uint32_t features = kernels::cpu_features();
    for (const kernels::KernelTable* t : kernels::compiled_tables())
        if ((t->needs & ~features) == 0) c.tables.push_back(t);
    std::stable_sort(c.tables.begin(), c.tables.end(),
                     [](const auto* a, const auto* b) { return a->priority > b->priority; });

    const engine::Topology topology = engine::read_topology();
    const unsigned most = f.threads ? f.threads : topology.n_threads;
    c.threads = {1};
    if (most > 1) c.threads.push_back(most);
    c.cold_bytes = f.quick ? 1 : std::max<std::size_t>(2 * last_level_cache(), 64 << 20);
    if (topology.memory_available) c.cold_bytes = std::min<std::size_t>(c.cold_bytes, topology.memory_available / 4);

    std::span<const int> cpus;
    if (most <= topology.thread_cpus.size()) cpus = std::span(topology.thread_cpus).first(most);
    auto pool = engine::ThreadPool::create(most, cpus);
    if (!pool) return std::move(pool).error();
    c.pool = std::move(*pool);
    if (f.only_list) return {};
    auto probe = RooflineProbe::create(most, {.quick = f.quick});
    if (!probe) return std::move(probe).error();
    c.probe = std::move(*probe);
    for (const unsigned n : c.threads) {
        auto r = c.probe->measure(n);
        if (!r) return std::move(r).error();
        c.rooflines.push_back(std::move(*r));
    }
    return {};
}

void describe(const Context& c) {
    char buffer[64];
    benchmark::AddCustomContext("cpu", std::string(kernels::cpu_name(buffer, sizeof buffer)));
    for (const Roofline& r : c.rooflines) {
        char text[160];
        std::snprintf(text, sizeof text, "read %.1f GB/s, int8 %.0f GOP/s, BF16 %.0f GOP/s, F32 %.0f GOP/s",
                      r.read_gb_s, r.int8_gop_s, r.bf16_gop_s, r.f32_gop_s);
        benchmark::AddCustomContext("roofline_threads_" + std::to_string(r.threads), text);
    }
}

int run(int argc, char** argv) {
    Flags flags;
    if (!parse(argc, argv, flags)) return 2;
    Context context;
    // Google Benchmark first, so that --help and a wrong flag do not wait for the roofline.
    std::vector<char*> args;
    for (std::string& a : flags.rest) args.push_back(a.data());
    int n = static_cast<int>(args.size());
    args.push_back(nullptr);
    benchmark::Initialize(&n, args.data(), [] {
        std::fputs(kHelp, stdout);
        benchmark::PrintDefaultHelp();
    });
    if (benchmark::ReportUnrecognizedArguments(n, args.data())) return 2;
    if (Status s = prepare(flags, context); !s) {
        std::fprintf(stderr, "kernels_bench: %s\n", s.error().message.c_str());
        return 1;
    }
    describe(context);
    register_matmul(context);
    register_ops(context);
    register_attention(context);
    register_sampling(context);
    register_threads(context);
#ifdef QUERN_HAVE_OPENBLAS
    register_openblas(context);
#endif
#ifdef QUERN_HAVE_EIGEN
    register_eigen(context);
#endif
    const bool all = flags.filtered || flags.only_list;
    const std::string filter = all ? benchmark::GetBenchmarkFilter() : default_filter(context);
    const std::size_t n_run = benchmark::RunSpecifiedBenchmarks(nullptr, nullptr, filter);
    benchmark::Shutdown();
    return n_run > 0 ? 0 : 2;
}

}  // namespace
}  // namespace quern::bench

int main(int argc, char** argv) { return quern::bench::run(argc, argv); }
