// SPDX-License-Identifier: Apache-2.0
// Flags that the programs have in common, named as llama.cpp's programs name them.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "quern/quern.hpp"
#include "tools/common/devices.h"

namespace quern::tools {

/// What --kv takes.
inline const std::vector<std::string> kKvTypes = {"f16", "f32", "two-tier", "q8", "q4"};

/// Flags about the model and the machine.
struct ModelFlags {
    std::string path, isa, pack_cache;
    std::vector<std::string> kv_types;  // as often as the flag was given; all the same
    int n_threads = 0, n_threads_batch = 0;
    std::uint32_t n_batch = 512;
    std::string numa = "interleave";
    bool tune = false, no_tune = false;
    bool batch_given = false;  // n_batch is the user's choice
    std::optional<std::uint32_t> kv_tail;
    std::optional<Preset> preset;  // for what neither --kv nor --kv-tail says
    std::uint64_t memory_limit = 0;  // bytes
    bool no_pack = false;
    bool verbose = false;
    DeviceFlags gpu;

    /// Adds -tb, --numa, --tune, --no-tune, --isa, --memory-limit, --pack-cache, --no-pack, those about GPUs and -v; -m, -t, -b and --kv where
    /// `single_run`: bench has lists of its own.
    void add_to(CLI::App& app, bool single_run = true);
    std::string kv_type() const { return kv_types.empty() ? "f16" : kv_types.front(); }
    ModelOptions options(const std::string& program) const;
    /// Whether counts and batch are left to the program, so that measured ones may be used.
    bool may_tune() const { return !no_tune && n_threads == 0 && n_threads_batch == 0 && !batch_given; }
};

/// Model::load with a line of progress on a terminal.
Result<Model> load_with_progress(const std::string& path, ModelOptions options);

/// Sets up --help, --version, the table of exit codes, and that the last of a repeated flag counts. Call it first.
void describe(CLI::App& app);

/// Parses the command line; llama.cpp's two-letter flags with one dash (-ctk) are understood too.
/// An exit code where the program should end now (--help, --version, a wrong flag).
std::optional<int> parse(CLI::App& app, int argc, const char* const* argv);

}  // namespace quern::tools
