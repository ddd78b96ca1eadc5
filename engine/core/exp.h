// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

namespace quern::engine {

/// e^x for x <= 0 to about 1e-14; below -707, e^-707. Not std::exp, which differs between C libraries. The same bits
/// everywhere need a build without contraction of a * b + c (-ffp-contract=off).
inline double exp_negative(double x) {
    constexpr double ln2_high = 0x1.62e42fee00000p-1, ln2_low = 0x1.a39ef35793c76p-33;  // n * ln2_high is exact
    x = std::max(x, -707.0);
    const int n = static_cast<int>(x * 0x1.71547652b82fep+0 - 0.5);  // nearest to x / ln 2
    const double r = (x - n * ln2_high) - n * ln2_low;               // within ln 2 / 2: 11 terms leave 6e-15
    double y = r * (1.0 / 39916800) + 1.0 / 3628800;
    y = y * r + 1.0 / 362880;
    y = y * r + 1.0 / 40320;
    y = y * r + 1.0 / 5040;
    y = y * r + 1.0 / 720;
    y = y * r + 1.0 / 120;
    y = y * r + 1.0 / 24;
    y = y * r + 1.0 / 6;
    y = y * r + 0.5;
    y = y * r + 1.0;
    y = y * r + 1.0;
    return y * std::bit_cast<double>(static_cast<std::uint64_t>(n + 1023) << 52);
}

}  // namespace quern::engine
