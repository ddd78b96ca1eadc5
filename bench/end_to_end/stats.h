// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace quern::bench {

template <class T>
double mean(const std::vector<T>& v) {
    return v.empty() ? 0 : std::accumulate(v.begin(), v.end(), 0.0) / double(v.size());
}

/// Standard deviation of the sample (n - 1); 0 for fewer than two values.
template <class T>
double deviation(const std::vector<T>& v) {
    if (v.size() < 2) return 0;
    const double m = mean(v);
    double sum = 0;
    for (const T x : v) sum += (double(x) - m) * (double(x) - m);
    return std::sqrt(sum / double(v.size() - 1));
}

/// The smallest value that at least `percent` of all values do not exceed (nearest rank). v is not empty.
inline double percentile(std::vector<double> v, double percent) {
    std::sort(v.begin(), v.end());
    const auto rank = static_cast<std::size_t>(std::ceil(percent / 100 * double(v.size())));
    return v[std::max<std::size_t>(rank, 1) - 1];
}

}  // namespace quern::bench
