// SPDX-License-Identifier: Apache-2.0
// Which part of a text is given up when there is no room for all of it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace quern::engine {

/// Positions of a text of n_tokens that stay, ascending, at most n_most of them: the first n_first always; of the others whole
/// blocks of RunArgs::kObservedBlock go, those with the least shares[block] first, of equals the older. A block with one of the
/// newest kNewest tokens goes only where all the others have gone and that does not suffice; then the oldest tokens go.
/// n_first <= n_most; n_most < n_tokens.
std::vector<std::uint32_t> keep_attended(std::span<const double> shares, std::uint32_t n_tokens, std::uint32_t n_first, std::uint32_t n_most);
inline constexpr std::uint32_t kNewest = 32;

}  // namespace quern::engine
