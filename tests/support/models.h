// SPDX-License-Identifier: Apache-2.0
// Where test models and reference data lie, and the kernel tables that this machine can run.
#pragma once

#include <cstdlib>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "kernels/table.h"

namespace quern::test {

namespace fs = std::filesystem;

inline std::string read_text(const fs::path& p) {
    std::ifstream in(p, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

template <class T>
std::vector<T> read_array(const fs::path& p) {
    const std::string bytes = read_text(p);
    std::vector<T> out(bytes.size() / sizeof(T));
    std::memcpy(out.data(), bytes.data(), out.size() * sizeof(T));
    return out;
}

/// The manifest is Python's JSON, in which NaN is a number; here it becomes null.
inline nlohmann::json read_json(const fs::path& p) {
    std::string text = read_text(p);
    for (std::size_t at; (at = text.find(": NaN")) != std::string::npos;) text.replace(at, 5, ": null");
    return nlohmann::json::parse(text);
}

/// Folder of tiny models: the whole set where shared/ is there, else the part kept in tests/data.
inline fs::path tiny_dir() {
    const fs::path shared = fs::path(QUERN_SHARED_DIR) / "oracle" / "tiny";
    return fs::exists(shared / "manifest.json") ? shared : fs::path(QUERN_TEST_DATA) / "tiny";
}

/// SmolLM2-135M-Instruct Q4_1: $QUERN_TEST_MODEL, or where tools/quickstart keeps it.
inline std::optional<std::string> smollm2() {
    if (const char* p = std::getenv("QUERN_TEST_MODEL"); p && fs::exists(p)) return p;
    const char* cache = std::getenv("XDG_CACHE_HOME");
    const char* home = std::getenv("HOME");
    const fs::path base = cache && *cache ? fs::path(cache) : home ? fs::path(home) / ".cache" : fs::path();
    const fs::path model = base / "quern" / "SmolLM2-135M-Instruct.Q4_1.gguf";
    if (fs::exists(model)) return model.string();
    return std::nullopt;
}
inline const char* kNoSmollm2 = "SmolLM2-135M-Instruct.Q4_1.gguf is not there: run tools/quickstart once, or set QUERN_TEST_MODEL";

inline fs::path smollm2_oracle() { return fs::path(QUERN_SHARED_DIR) / "oracle" / "smollm2"; }
inline const char* kNoShared = "the reference data of shared/oracle is not there (QUERN_SHARED_DIR)";

/// Normalised mean squared error: sum of squared differences over sum of squared references.
inline double nmse(const std::vector<float>& got, const std::vector<float>& want) {
    double diff = 0, norm = 0;
    for (std::size_t i = 0; i < want.size(); ++i) {
        const double d = static_cast<double>(got[i]) - want[i];
        diff += d * d;
        norm += static_cast<double>(want[i]) * want[i];
    }
    return diff / norm;
}

/// Names of the tables that this build has and this machine can run, or the one that QUERN_ISA names. In slow builds a whole
/// model takes minutes with the scalar one, which the kernels' own tests run there, too.
inline std::vector<std::string> runnable_isas() {
    if (const char* isa = std::getenv("QUERN_ISA"); isa && *isa) return {isa};
    std::vector<std::string> out;
    for (const kernels::KernelTable* t : kernels::compiled_tables())
        if ((t->needs & ~kernels::cpu_features()) == 0) out.emplace_back(t->name);
    if (QUERN_TEST_SLOW && out.size() > 1) std::erase(out, "scalar");
    return out;
}

}  // namespace quern::test
