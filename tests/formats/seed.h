// SPDX-License-Identifier: Apache-2.0
// Random input that a failure can be repeated with: the seed is printed, and QUERN_TEST_SEED sets it.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <random>

namespace quern::test {

inline std::mt19937_64 seeded() {
    const char* text = std::getenv("QUERN_TEST_SEED");
    const std::uint64_t seed = text ? std::strtoull(text, nullptr, 0) : 20240601u;
    std::cout << "QUERN_TEST_SEED=" << seed << "\n";
    return std::mt19937_64(seed);
}

}  // namespace quern::test
