// SPDX-License-Identifier: Apache-2.0
// A run's numbers as the engine would write them (kernels/vulkan/args.h), and memory of pages, for the tests of the kernels.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/table.h"
#include "kernels/vulkan/ops.h"
#include "tests/vulkan/support.h"

namespace quern::vulkan::test {

using kernels::KvFormat;

inline const kernels::KernelTable& scalar() {
    static const kernels::KernelTable* const t = *kernels::select_table("scalar", 0);
    return *t;
}

class RunBlock {
public:
    RunBlock() : words_(sizeof(RunHeader) / 4) {}
    RunHeader header{};
    /// Appends, 16-byte aligned; gives the word offset.
    template <class T>
    std::uint32_t add(const std::vector<T>& items) {
        words_.resize((words_.size() + 3) / 4 * 4);
        const std::size_t at = words_.size();
        words_.resize(at + (items.size() * sizeof(T) + 3) / 4);
        if (!items.empty()) std::memcpy(words_.data() + at, items.data(), items.size() * sizeof(T));
        return static_cast<std::uint32_t>(at);
    }
    std::vector<std::uint32_t> words() const {
        std::vector<std::uint32_t> out = words_;
        std::memcpy(out.data(), &header, sizeof header);
        out.resize((out.size() + 3) / 4 * 4);
        return out;
    }

private:
    std::vector<std::uint32_t> words_;
};

/// A chunk of one sequence, as ChunkInfo and TokenInfo say it.
struct ChunkSpec {
    std::int32_t pos0 = 0;
    std::uint32_t n_tokens = 1;
    std::vector<std::uint32_t> table = {};
    std::int32_t origin = 0;
    std::uint32_t source = kSourcePages;
    std::vector<std::uint32_t> sink = {};            // empty or a page id
    std::vector<std::uint64_t> masks = {};            // empty or one a token
    std::uint32_t first = 0, table_at = 0;        // filled in by add_chunks
};

inline void add_chunks(RunBlock& run, std::vector<ChunkSpec>& chunks, std::int32_t window = 0) {
    std::vector<ChunkInfo> infos;
    std::vector<TokenInfo> tokens;
    for (std::uint32_t i = 0; i < chunks.size(); ++i) {
        ChunkSpec& c = chunks[i];
        c.first = static_cast<std::uint32_t>(tokens.size());
        c.table_at = run.add(c.table);
        infos.push_back({c.first, c.n_tokens, c.pos0, c.table_at, c.origin, c.source, c.sink.empty() ? 0 : run.add(c.sink),
                         c.masks.empty() ? 0 : run.add(c.masks)});
        for (std::uint32_t k = 0; k < c.n_tokens; ++k) {
            const std::int32_t pos = c.pos0 + static_cast<std::int32_t>(k);
            tokens.push_back({i, pos, window ? std::max(0, pos - window + 1) : 0, 0});
        }
    }
    run.header.n_tokens = static_cast<std::uint32_t>(tokens.size());
    run.header.n_chunks = static_cast<std::uint32_t>(infos.size());
    run.header.info = run.add(tokens);
    run.header.chunks = run.add(infos);
}

/// Pages of one layer on the host, every byte 0xff at first: NaN in every exact format.
struct Pages {
    KvFormat format;
    std::uint32_t head_dim, n_head_kv, page_tokens;
    std::size_t head_bytes;
    std::vector<std::byte> bytes;
    Pages(KvFormat f, std::uint32_t dim, std::uint32_t heads, std::uint32_t tokens, std::uint32_t n_pages)
        : format(f), head_dim(dim), n_head_kv(heads), page_tokens(tokens),
          head_bytes(is_quantized(f) ? kernels::KvQuantLayout(f, dim).bytes : tokens * (dim + (dim + 15) / 16 * 16) * element()),
          bytes(n_pages * heads * head_bytes, std::byte{0xff}) {}
    std::size_t element() const { return format == KvFormat::F32 ? 4 : 2; }
    kernels::KvHeadView view(std::uint32_t head, const std::uint32_t* table) {
        const std::size_t k = head * head_bytes;
        return {bytes.data(), table, n_head_kv * head_bytes, k, is_quantized(format) ? k : k + page_tokens * head_dim * element(), page_tokens, head_dim};
    }
};

inline std::vector<std::uint32_t> shuffled(std::uint32_t n, std::uint32_t seed) {
    std::vector<std::uint32_t> ids(n);
    std::iota(ids.begin(), ids.end(), 0u);
    std::shuffle(ids.begin(), ids.end(), std::mt19937(seed));
    return ids;
}

inline std::vector<float> gaussian(std::size_t n, std::uint32_t seed) {
    std::mt19937 rng(seed);
    std::normal_distribution<float> dist;
    std::vector<float> x(n);
    for (float& v : x) v = dist(rng);
    return x;
}

inline constexpr float kCanary = -12345.5f;

}  // namespace quern::vulkan::test
