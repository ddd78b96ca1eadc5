// SPDX-License-Identifier: Apache-2.0
// One file's bytes to entries; internal to formats (gguf_file.cpp joins the files of a split and answers look-ups).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/gguf.h"

namespace quern::gguf {

struct Parsed {
    std::uint32_t version = 0;
    std::uint64_t alignment = 32;
    std::vector<Value> values;
    std::vector<std::size_t> by_key;  // positions in `values` in key order, no key twice
    std::vector<Tensor> tensors;      // names may still repeat
};

Result<Parsed> parse_one(std::span<const std::byte> bytes, const std::string& name);

inline std::string_view name_of(const Value& v) { return v.key; }
inline std::string_view name_of(const Tensor& t) { return t.name; }

/// Positions of the entries in name order. Sorting, unlike hashing, has no bad case that a file can be made to hit.
template <class Entry>
std::vector<std::size_t> name_order(const std::vector<Entry>& entries) {
    std::vector<std::size_t> order(entries.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
        const int c = name_of(entries[a]).compare(name_of(entries[b]));
        return c != 0 ? c < 0 : a < b;
    });
    return order;
}

/// The first entry, in name order, whose name an earlier entry has; nullptr if all differ.
template <class Entry>
const Entry* first_repeated(const std::vector<Entry>& entries, const std::vector<std::size_t>& order) {
    for (std::size_t i = 1; i < order.size(); ++i) {
        if (name_of(entries[order[i - 1]]) == name_of(entries[order[i]])) return &entries[order[i]];
    }
    return nullptr;
}

template <class Entry>
const Entry* find_by_name(const std::vector<Entry>& entries, const std::vector<std::size_t>& order,
                          std::string_view name) {
    const auto at = std::lower_bound(order.begin(), order.end(), name, [&](std::size_t i, std::string_view wanted) {
        return name_of(entries[i]) < wanted;
    });
    return at != order.end() && name_of(entries[*at]) == name ? &entries[*at] : nullptr;
}

}  // namespace quern::gguf
