// SPDX-License-Identifier: Apache-2.0
#include "engine/run/compress.h"

#include <algorithm>

#include "engine/backend/backend.h"

namespace quern::engine {

std::vector<std::uint32_t> keep_attended(std::span<const double> shares, std::uint32_t n_tokens, std::uint32_t n_first, std::uint32_t n_most) {
    constexpr std::uint32_t block = RunArgs::kObservedBlock;
    std::vector<std::uint32_t> blocks;
    for (std::uint32_t b = (n_first + block - 1) / block; (b + 1) * block + kNewest <= n_tokens; ++b) blocks.push_back(b);
    std::ranges::stable_sort(blocks, {}, [&](std::uint32_t b) { return shares[b]; });
    const std::uint32_t surplus = n_tokens - n_most;
    blocks.resize(std::min<std::size_t>(blocks.size(), (surplus + block - 1) / block));

    std::vector<bool> goes(RunArgs::observed_blocks(n_tokens));
    for (const std::uint32_t b : blocks) goes[b] = true;
    std::vector<std::uint32_t> kept;
    for (std::uint32_t i = 0; i < n_tokens; ++i)
        if (!goes[i / block]) kept.push_back(i);
    if (kept.size() > n_most) kept.erase(kept.begin() + n_first, kept.begin() + n_first + static_cast<std::ptrdiff_t>(kept.size() - n_most));
    return kept;
}

}  // namespace quern::engine
