// SPDX-License-Identifier: Apache-2.0
// What the fuzz target and the test of session files share with the files' writer.
#pragma once

#include <cstdint>

#include "formats/session_file.h"

namespace quern::test {

inline constexpr int kSessionFiles = 3;

/// Description `which` (< kSessionFiles): pages of 4 tokens and 24 bytes, of 16 and 1024 (exact ones: 40), of 1 and 0.
inline SessionFile session_file(int which) {
    SessionFile f;
    f.model = 0x0123456789abcdef;
    f.kv_format = 1;
    f.page_tokens = which == 0 ? 4 : which == 1 ? 16 : 1;
    f.page_bytes = which == 0 ? 24 : which == 1 ? 1024 : 0;
    f.n_vocab = 512;
    f.exact_bytes = which == 1 ? 40 : 0;
    return f;
}

}  // namespace quern::test
