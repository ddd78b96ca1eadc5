// SPDX-License-Identifier: Apache-2.0
// Link counting_new.cpp to count the heap allocations of a test program.
#pragma once

#include <cstdint>

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define QUERN_TEST_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define QUERN_TEST_SANITIZED 1
#endif
#endif

namespace quern::test {

/// Calls of operator new since the program started, by all threads. Always 0 under a sanitizer, which brings its own
/// operator new: tests of allocation counts then check nothing and should skip.
std::uint64_t allocation_count();

}  // namespace quern::test
