// SPDX-License-Identifier: Apache-2.0
// Link counting_new.cpp to count the heap allocations of a test program.
#pragma once

#include <cstdint>

namespace quern::test {

/// Calls of operator new since the program started, by all threads. Always 0 under a sanitizer (QUERN_TEST_SANITIZED), which brings
/// its own operator new: tests of allocation counts then check nothing and should skip.
std::uint64_t allocation_count();

}  // namespace quern::test
