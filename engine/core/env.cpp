// SPDX-License-Identifier: Apache-2.0
#include "engine/core/env.h"

#include <charconv>
#include <cstdlib>
#include <string_view>

#include "engine/core/thread_pool.h"
#include "formats/text.h"

namespace quern::engine {
namespace {

std::string_view variable(const char* name) {
    const char* value = std::getenv(name);
    return value != nullptr ? value : "";
}

}  // namespace

Result<Environment> read_environment() {
    Environment env;
    env.isa = variable("QUERN_ISA");
    if (const std::string_view text = variable("QUERN_THREADS"); !text.empty()) {
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), env.n_threads);
        if (error != std::errc() || end != text.data() + text.size() || env.n_threads < 1 ||
            env.n_threads > static_cast<int>(ThreadPool::kMaxThreads)) {
            return Error{Errc::invalid_argument, cat("environment variable QUERN_THREADS is ", quoted(text),
                                                     "; it must be a number in 1 to ", ThreadPool::kMaxThreads)};
        }
    }
    // The XDG base directory specification: a relative path counts as unset.
    if (const std::string_view cache = variable("XDG_CACHE_HOME"); cache.starts_with('/')) {
        env.cache_dir = cat(cache, "/quern");
    } else if (const std::string_view home = variable("HOME"); home.starts_with('/')) {
        env.cache_dir = cat(home, "/.cache/quern");
    }
    return env;
}

}  // namespace quern::engine
