// SPDX-License-Identifier: Apache-2.0
// Descriptions that the fuzz target and the test of the packed cache compare files with.
#pragma once

#include <cstddef>
#include <string>

#include "formats/pack_file.h"

namespace quern::test {

inline constexpr int kPackFiles = 4;

/// Description `which` (< kPackFiles), placed: no matrix, one, several, one with a name of 300 bytes.
inline PackFile pack_file(int which) {
    static const std::string long_name(300, 'n');
    PackFile f;
    f.layout = 7;
    f.source_size = 123456789;
    f.source_time = -5;
    f.source_hash = 0x0123456789abcdef;
    if (which > 0) f.matrices.push_back({which == 3 ? std::string_view(long_name) : "blk.0.attn_q.weight", DType::Q4_0, 20, 32, 640});
    if (which == 2) {
        f.matrices.push_back({"output.weight", DType::F32, 5, 3, 192});
        f.matrices.push_back({"b", DType::MXFP4, 16, 32, 320});
    }
    f.place();
    return f;
}

}  // namespace quern::test
