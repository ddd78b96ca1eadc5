// SPDX-License-Identifier: Apache-2.0
#include "engine/core/numa.h"

#include <unistd.h>

#include <climits>
#include <cstdint>

#ifdef __linux__
#include <linux/mempolicy.h>
#include <sys/syscall.h>
#endif

#include "engine/core/thread_pool.h"

namespace quern::engine {
namespace {

/// The whole pages inside the stretch.
std::span<std::byte> whole_pages(std::byte* first, std::byte* end) {
    const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
    const std::uintptr_t from = (reinterpret_cast<std::uintptr_t>(first) + page - 1) / page * page;
    const std::uintptr_t to = reinterpret_cast<std::uintptr_t>(end) / page * page;
    if (from >= to) return {};
    return {first + (from - reinterpret_cast<std::uintptr_t>(first)), to - from};
}

}  // namespace

bool bind_pages(std::span<std::byte> pages, std::span<const int> nodes) {
#ifdef SYS_mbind
    constexpr std::size_t kBits = sizeof(unsigned long) * CHAR_BIT, kMaxNodes = 1024;
    unsigned long mask[kMaxNodes / kBits] = {};
    for (const int node : nodes) {
        if (node < 0 || static_cast<std::size_t>(node) >= kMaxNodes) return false;
        mask[static_cast<std::size_t>(node) / kBits] |= 1ul << (static_cast<std::size_t>(node) % kBits);
    }
    // Preferred, not bound: a node that is full must not end the process.
    const int mode = nodes.size() == 1 ? MPOL_PREFERRED : MPOL_INTERLEAVE;
    return ::syscall(SYS_mbind, pages.data(), pages.size(), mode, mask, kMaxNodes + 1, 0u) == 0;  // the last bit is not read
#else
    static_cast<void>(pages), static_cast<void>(nodes);
    return false;
#endif
}

void Numa::interleave(std::span<std::byte> memory) const {
    if (mode_ == NumaMode::off) return;
    if (const auto pages = whole_pages(memory.data(), memory.data() + memory.size()); !pages.empty()) bind_(pages, nodes_);
}

void Numa::local(std::byte* panels, std::uint32_t n_panels, std::size_t stride) const {
    if (mode_ != NumaMode::local) return;
    for (std::uint32_t i = 0; i < n_parts(); ++i) {
        std::byte* const first = panels + even_part(n_panels, i, n_parts()) * stride;
        const auto pages = whole_pages(first, panels + even_part(n_panels, i + 1, n_parts()) * stride);
        if (!pages.empty()) bind_(pages, {&nodes_[i], 1});
    }
}

}  // namespace quern::engine
