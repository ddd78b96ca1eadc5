// SPDX-License-Identifier: Apache-2.0
#include "tools/common/options.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>
#include <vector>

#include "tools/common/process.h"

namespace quern::tools {

void ModelFlags::add_to(CLI::App& app, bool single_run) {
    if (single_run) {
        app.add_option("-m,--model", path, "GGUF file (of a split model: the first part)")->required()->type_name("FILE");
        app.add_option("-t,--threads", n_threads, "Threads; 0: one a physical core this process may use")
            ->check(CLI::Range(0, 4096));
        auto* batch = app.add_option("-b,--batch-size", n_batch, "Most prompt tokens in one step")
            ->check(CLI::Range(1, 4096))
            ->capture_default_str();
        app.add_option("--kv,--cache-type-k,--cache-type-v", kv_types, "KV cache: f16 (default), f32, two-tier (old tokens "
                       "4 bits, the newest f16), q8, q4; also -ctk, -ctv")
            ->check(CLI::IsMember(kKvTypes))
            ->type_name("TYPE")
            ->allow_extra_args(false)
            ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
        app.final_callback([this, batch] {
            batch_given = batch->count() > 0;
            for (const std::string& type : kv_types) {
                if (type != kv_types.front()) {
                    throw CLI::ValidationError("--cache-type-v", "keys and values are kept in the same format");
                }
            }
        });
    }
    app.add_option("--threads-batch", n_threads_batch, "Threads that read prompts (also -tb); 0: as -t, or chosen")
        ->check(CLI::Range(0, 1024));
    app.add_option("--numa", numa, "Nodes that hold the weights: off, interleave or local")
        ->check(CLI::IsMember({"off", "interleave", "local"}))
        ->capture_default_str();
    auto* force = app.add_flag("--tune", tune, "Measure the best -t, -tb and -b now and keep them for later runs");
    app.add_flag("--no-tune", no_tune, "Neither measure nor use what an earlier run measured")->excludes(force);
    app.add_option("--kv-tail", kv_tail, "Newest tokens that two-tier, q8 and q4 keep as f16 (default: 256, 0, 0)")
        ->check(CLI::Range(0, 1 << 20));
    app.add_option("--isa", isa, "Kernels: scalar, avx2, avxvnni, avx512, amx, neon or neon-i8mm; default: the "
                             "best this CPU has");
    app.add_option("--memory-limit", memory_limit, "Most memory for weights, KV cache and buffers: 512M, 4G")
        ->transform(CLI::AsSizeValue(false));
    auto* cache = app.add_option("--pack-cache", pack_cache, "Keep packed weights in this folder for later runs")->type_name("DIR");
    app.add_flag("--no-pack", no_pack, "Use weights from the file as they are: instant start, less memory, slow tokens")
        ->excludes(cache);
    gpu.add_to(app);
    app.add_flag("-v,--verbose", verbose, "Say on standard error what is loaded and chosen");
}

ModelOptions ModelFlags::options(const std::string& program) const {
    ModelOptions out;
    out.n_threads = n_threads;
    out.n_threads_batch = n_threads_batch;
    out.numa = numa == "off" ? Numa::off : numa == "local" ? Numa::local : Numa::interleave;
    out.tune = !may_tune() ? Tune::off : tune ? Tune::force : Tune::cached;
    out.isa = isa;
    out.memory_limit = memory_limit;
    out.pack = !no_pack;
    out.pack_cache = pack_cache;
    constexpr std::array kTypes = {KvType::f16, KvType::f32, KvType::two_tier, KvType::q8, KvType::q4};
    const auto at = std::find(kKvTypes.begin(), kKvTypes.end(), kv_type()) - kKvTypes.begin();
    out.kv_type = kTypes[static_cast<std::size_t>(at)];
    if (preset && kv_types.empty()) {
        const PresetOptions chosen = preset_options(*preset);
        out.kv_type = chosen.kv_type;
        out.kv_tail = chosen.kv_tail;
        out.kv_spare_tails = chosen.kv_spare_tails;
    }
    if (kv_tail) out.kv_tail = static_cast<std::int32_t>(*kv_tail);
    out.n_batch = n_batch;
    out.device = gpu.device;
    out.device_disable = gpu.disable;
    out.n_gpu_layers = gpu.n_gpu_layers();
    out.on_log = log_to_stderr(program, verbose);
    return out;
}

Result<Model> load_with_progress(const std::string& path, ModelOptions options) {
    Progress progress;
    options.on_progress = [&progress](const LoadProgress& p) {
        progress.show(std::string("loading: ") + p.stage, p.done, p.total);
        return true;
    };
    return Model::load(path, options);
}

void describe(CLI::App& app) {
    app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    app.set_version_flag("--version", std::string("quern ") + version());
    app.footer(kExitCodesHelp);
    app.get_formatter()->column_width(36);
}

std::optional<int> parse(CLI::App& app, int argc, const char* const* argv) {
    // CLI11 has no flags of several letters behind one dash.
    static constexpr std::array<std::pair<std::string_view, const char*>, 6> kShort = {
        {{"-ctk", "--cache-type-k"},
         {"-ctv", "--cache-type-v"},
         {"-pg", "--prompt-and-gen"},
         {"-ngl", "--n-gpu-layers"},
         {"-npl", "--streams"},
         {"-tb", "--threads-batch"}}};
    std::vector<const char*> arguments(argv, argv + argc);
    for (const char*& argument : arguments) {
        for (const auto& [from, to] : kShort) {
            if (argument == from) argument = to;
        }
    }
    try {
        app.parse(argc, arguments.data());
    } catch (const CLI::ParseError& e) {
        return app.exit(e) == 0 ? kExitOk : kExitUsage;
    }
    return std::nullopt;
}

}  // namespace quern::tools
