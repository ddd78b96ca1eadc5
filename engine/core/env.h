// SPDX-License-Identifier: Apache-2.0
// The only reader of environment variables. Options given by the caller win over them.
#pragma once

#include <string>

#include "quern/result.hpp"

namespace quern::engine {

struct Environment {
    std::string isa;    ///< QUERN_ISA: name of the kernel table to use ("avx2", ...); "" where unset or empty
    int n_threads = 0;  ///< QUERN_THREADS: 1 to ThreadPool::kMaxThreads; 0 where unset or empty
    std::string cache_dir;  ///< $XDG_CACHE_HOME/quern, else $HOME/.cache/quern; "" where neither is an absolute path
};

/// Fails on a QUERN_THREADS that is not such a number. QUERN_ISA is checked where the table is chosen.
Result<Environment> read_environment();

}  // namespace quern::engine
