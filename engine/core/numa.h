// SPDX-License-Identifier: Apache-2.0
// Which NUMA node gives the pages of large tables. A hint throughout: where the system refuses, as in containers without
// CAP_SYS_NICE, a page comes from the node of the thread that first writes it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

namespace quern::engine {

enum class NumaMode {
    off,         ///< as the system likes
    interleave,  ///< pages from all nodes in turn: every thread reads at the same mixed distance
    local,       ///< row ranges on the node whose threads draw them first
};

/// Asks for the pages of a stretch (whole pages, none of them touched yet) to come from these nodes in turn, or with one
/// node, from there while it has any. Returns whether the system agreed.
using BindPages = std::function<bool(std::span<std::byte> pages, std::span<const int> nodes)>;
bool bind_pages(std::span<std::byte> pages, std::span<const int> nodes);

class Numa {
public:
    Numa() = default;
    /// nodes: those with threads. Less than two turn the mode off. bind: replaced by tests.
    Numa(NumaMode mode, std::vector<int> nodes, BindPages bind = bind_pages)
        : mode_(nodes.size() < 2 ? NumaMode::off : mode), nodes_(std::move(nodes)), bind_(std::move(bind)) {}

    NumaMode mode() const { return mode_; }
    /// Stretches that local() cuts a matrix into; 1 in the other modes.
    std::uint32_t n_parts() const { return mode_ == NumaMode::local ? static_cast<std::uint32_t>(nodes_.size()) : 1; }
    /// For what any thread may read; nothing where the mode is off.
    void interleave(std::span<std::byte> memory) const;
    /// For n_panels panels of `stride` bytes: part i, panels even_part(n_panels, i, n_parts()) and on, comes from node i.
    /// Nothing unless the mode is local.
    void local(std::byte* panels, std::uint32_t n_panels, std::size_t stride) const;

private:
    NumaMode mode_ = NumaMode::off;
    std::vector<int> nodes_;
    BindPages bind_;
};

}  // namespace quern::engine
