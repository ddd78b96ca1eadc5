// SPDX-License-Identifier: Apache-2.0
// Attention as the engine will record it (lists of segments, partials, merge), and the same in double precision from what
// the pages hold.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>

#include "tests/vulkan/run_block.h"

namespace quern::vulkan::test {

/// By the definition of binary16.
inline double half_value(std::uint16_t h) {
    static const std::vector<double> values = [] {
        std::vector<double> x(1 << 16);
        for (int i = 0; i < 1 << 16; ++i) {
            const int e = i >> 10 & 31, m = i & 1023;
            x[static_cast<std::size_t>(i)] = (i >> 15 ? -1 : 1) * (e == 31 ? (m ? NAN : INFINITY) : e ? std::ldexp(1024 + m, e - 25) : std::ldexp(m, -24));
        }
        return x;
    }();
    return values[h];
}
template <class T>
T load(const std::byte* p) {
    T x;
    std::memcpy(&x, p, sizeof x);
    return x;
}

/// Channel d of K, or of V, at slot t of a page, by the definitions in kernels/views.h.
inline double page_value(const Pages& p, const std::byte* head, std::uint32_t t, std::uint32_t d, bool v) {
    const std::uint32_t pitch = (p.head_dim + 15) / 16 * 16;
    if (!is_quantized(p.format)) {
        const std::size_t i = v ? std::size_t{p.page_tokens} * p.head_dim + t * pitch + d : (t / 16 * p.head_dim + d) * 16 + t % 16;
        return p.format == KvFormat::F32 ? load<float>(head + 4 * i) : half_value(load<std::uint16_t>(head + 2 * i));
    }
    const kernels::KvQuantLayout at(p.format, p.head_dim);
    if (p.format == KvFormat::Q8) {
        const std::byte* code = v ? head + at.v_codes + (d / 16 * 32 + t) * 16 + d % 16 : head + d * 32 + t;
        return load<std::int8_t>(code) * half_value(load<std::uint16_t>(v ? head + at.v_scale + 2 * t : head + at.k_scale + 2 * d));
    }
    if (v) {
        const auto word = load<std::uint32_t>(head + at.v_codes + ((d / 16 * 4 + t / 8) * 16 + d % 16) * 4);
        return (word >> (4 * (t % 8)) & 15) * half_value(load<std::uint16_t>(head + at.v_scale + 2 * t)) + half_value(load<std::uint16_t>(head + at.v_min + 2 * t));
    }
    const auto word = load<std::uint32_t>(head + (d / 4 * 16 + t % 16) * 4);
    const double code = word >> (8 * (d % 4) + 4 * (t / 16)) & 15, zero = load<std::int8_t>(head + at.k_zero + d);
    return (code + zero / 4) * half_value(static_cast<std::uint16_t>(load<std::uint8_t>(head + at.k_scale + d) << 7));
}

/// Positions [begin, end) that lie in one memory.
struct Piece {
    std::int32_t begin, end;
    const Pages* memory;
    std::uint32_t source;
    const std::vector<std::uint32_t>* table;
    std::int32_t origin;
    std::uint32_t list;          // 0: exact pages, 1: quantized ones
};
/// What a token at a position sees, ascending; equal answers let tokens share a segment.
using Pieces = std::function<std::vector<Piece>(const ChunkSpec&, std::int32_t pos)>;

struct AttnCase {
    std::uint32_t head_dim, n_head_kv, n_rep;
    bool wide;
    std::int32_t window = 0;
    float softcap = 0;
    bool sinks = false;
    std::int32_t cut = 256;      // of segments; 0: nowhere
};

class AttentionFixture : public DeviceTest {
protected:
    /// `memory`: the pools by source. formats: of list 0 and of list 1.
    static std::vector<float> attend(const AttnCase& c, std::vector<ChunkSpec>& chunks, const std::vector<const Pages*>& memory,
                                     const std::vector<const Pages*>& lists, const Pieces& pieces, const std::vector<float>& q, const std::vector<float>& sinks) {
        RunBlock run;
        add_chunks(run, chunks, c.window);
        const std::uint32_t n = run.header.n_tokens, n_head = c.n_head_kv * c.n_rep;
        std::vector<AttentionShape> shapes;
        std::uint32_t tile = ~0u;
        for (const Pages* p : lists) {
            shapes.push_back(AttentionShape::make(p->format, c.head_dim, c.n_rep, p->page_tokens, c.wide));
            tile = std::min(tile, shapes.back().tokens());
        }
        std::vector<std::vector<AttnSegment>> segments(lists.size());
        std::vector<AttnMerge> merges(n);
        std::uint32_t slot = 0;
        for (const ChunkSpec& ch : chunks) cut_chunk(c, ch, pieces, tile, run, segments, merges, slot);
        for (std::size_t i = 0; i < lists.size(); ++i) run.header.segments[i] = run.add(segments[i]);
        run.header.merges = run.add(merges);
        const std::uint32_t stride = n_head * c.head_dim + 4;
        const float nan = std::numeric_limits<float>::quiet_NaN();
        const Buffer r = upload(run.words()), dq = upload(q), ds = upload(sinks), to = upload(std::vector<float>(std::size_t{n + 1} * stride, kCanary)),
                     parts = upload(std::vector<float>(std::size_t{slot + 1} * n_head * c.head_dim, nan)), ml = upload(std::vector<float>(std::size_t{slot + 1} * n_head * 2, nan));
        std::vector<Buffer> pages;
        for (const Pages* p : memory) pages.push_back(upload(p->bytes));
        pages.resize(3);
        AttentionPush push{r.address(), dq.address(), pages[0].address(), pages[1].address(), pages[2].address(), parts.address(), ml.address(),
                           0, n_head * c.head_dim, c.n_head_kv, c.n_rep, 0, scale(c), c.softcap, 0};
        const MergePush merge{r.address(), parts.address(), ml.address(), c.sinks ? ds.address() : 0, to.address(), kListMerges, n_head, stride, 0};
        DeviceTest::run([&](Commands& commands) {
            for (std::uint32_t i = 0; i < lists.size(); ++i) {
                if (segments[i].empty()) continue;
                push.list = kListSegments + i;
                push.reps = shapes[i].reps;
                const auto constants = shapes[i].constants();
                const Kernel* k = kernel("attention", {constants.begin(), constants.end()});
                if (k) commands.dispatch(*k, push, {static_cast<std::uint32_t>(segments[i].size()), c.n_head_kv * shapes[i].rep_groups()});
            }
            commands.barrier();
            const auto constants = merge_constants(c.head_dim);
            const Kernel* k = kernel("attention_merge", {constants.begin(), constants.end()});
            if (k) commands.dispatch(*k, merge, {n, n_head});
        });
        std::vector<float> got = download<float>(to, std::size_t{n + 1} * stride);
        for (std::size_t i = 0; i < got.size(); ++i) {
            if (i >= std::size_t{n} * stride || i % stride >= n_head * c.head_dim) {
                EXPECT_EQ(got[i], kCanary) << i;
            }
        }
        const std::vector<float> beyond = download<float>(parts, std::size_t{n_head} * c.head_dim, std::size_t{slot} * n_head * c.head_dim * 4);
        for (const float x : beyond) EXPECT_TRUE(std::isnan(x));
        for (std::uint32_t i = 0; i < n; ++i) std::copy_n(got.begin() + i * stride, n_head * c.head_dim, got.begin() + i * n_head * c.head_dim);
        got.resize(std::size_t{n} * n_head * c.head_dim);
        return got;
    }

    /// Runs it and compares every value with double precision.
    static std::vector<float> check(const AttnCase& c, std::vector<ChunkSpec> chunks, const std::vector<const Pages*>& memory,
                                    const std::vector<const Pages*>& lists, const Pieces& pieces) {
        std::uint32_t n = 0;
        for (const ChunkSpec& ch : chunks) n += ch.n_tokens;
        const std::uint32_t n_head = c.n_head_kv * c.n_rep;
        const std::vector<float> q = gaussian(std::size_t{n} * n_head * c.head_dim, 77), sinks = gaussian(n_head, 78);
        const std::vector<float> got = attend(c, chunks, memory, lists, pieces, q, sinks);
        for (const ChunkSpec& ch : chunks)
            for (std::uint32_t i = 0; i < ch.n_tokens; ++i)
                for (std::uint32_t h = 0; h < n_head; ++h) {
                    const std::size_t at = (std::size_t{ch.first + i} * n_head + h) * c.head_dim;
                    compare(c, ch, i, h, pieces, q.data() + at, sinks[h], got.data() + at);
                    if (HasFatalFailure()) return got;
                }
        return got;
    }

private:
    static float scale(const AttnCase& c) { return 1.0f / std::sqrt(static_cast<float>(c.head_dim)); }

    static bool same(const std::vector<Piece>& a, const std::vector<Piece>& b) {
        return a.size() == b.size() && std::equal(a.begin(), a.end() - 1, b.begin(), [](const Piece& x, const Piece& y) { return x.begin == y.begin && x.end == y.end && x.table == y.table; }) &&
               a.back().begin == b.back().begin;
    }

    static void cut_chunk(const AttnCase& c, const ChunkSpec& ch, const Pieces& pieces, std::uint32_t tile, RunBlock& run,
                          std::vector<std::vector<AttnSegment>>& segments, std::vector<AttnMerge>& merges, std::uint32_t& slot) {
        for (std::uint32_t i = 0; i < ch.n_tokens;) {
            const std::int32_t pos = ch.pos0 + static_cast<std::int32_t>(i);
            const std::vector<Piece> of = pieces(ch, pos);
            std::uint32_t n = 1;
            while (n < tile && i + n < ch.n_tokens && same(of, pieces(ch, pos + static_cast<std::int32_t>(n)))) ++n;   // the last one grows with the position
            const std::int32_t last = pos + static_cast<std::int32_t>(n) - 1, least = c.window ? std::max(0, pos - c.window + 1) : 0;
            std::uint32_t parts = 0;
            const std::uint32_t slot0 = slot;
            for (const Piece& p : pieces(ch, last)) {
                const std::uint32_t table = run.add(*p.table);
                const std::int32_t end = std::min(p.end, last + 1);
                for (std::int32_t at = std::max(p.begin, least); at < end; ++parts, slot += n) {
                    const std::int32_t next = c.cut ? std::min(end, (at / c.cut + 1) * c.cut) : end;
                    segments[p.list].push_back({ch.first + i, n, at, next, table, p.origin, p.source, slot});
                    at = next;
                }
            }
            for (std::uint32_t k = 0; k < n; ++k) merges[ch.first + i + k] = {slot0 + k, n, parts, 0};
            i += n;
        }
    }

    static void compare(const AttnCase& c, const ChunkSpec& ch, std::uint32_t token, std::uint32_t head, const Pieces& pieces, const float* q,
                        float sink, const float* got) {
        const std::int32_t pos = ch.pos0 + static_cast<std::int32_t>(token);
        std::vector<double> s, out(c.head_dim);
        std::vector<std::vector<double>> v;
        double most = -INFINITY, error = 0, largest = 0;
        for (const Piece& p : pieces(ch, pos))
            for (std::int32_t t = p.begin; t < std::min(p.end, pos + 1); ++t) {
                if (c.window && t <= pos - c.window) continue;
                if (!ch.masks.empty() && t >= ch.pos0 && !(ch.masks[token] >> (t - ch.pos0) & 1)) continue;
                const std::uint32_t in = static_cast<std::uint32_t>(t - p.origin);
                const std::byte* at = p.memory->bytes.data() + ((*p.table)[in / p.memory->page_tokens] * c.n_head_kv + head / c.n_rep) * p.memory->head_bytes;
                double sum = 0, size = 0;
                v.emplace_back(c.head_dim);
                for (std::uint32_t d = 0; d < c.head_dim; ++d) {
                    const double x = q[d] * page_value(*p.memory, at, in % p.memory->page_tokens, d, false);
                    sum += x;
                    size += std::abs(x);
                    v.back()[d] = page_value(*p.memory, at, in % p.memory->page_tokens, d, true);
                    largest = std::max(largest, std::abs(v.back()[d]));
                }
                // In Q4 code and zero are added apart, and may be larger than their sum: by the range of codes, 15 to 16 times a value.
                error = std::max(error, (p.memory->format == KvFormat::Q4 ? 16 : 1) * size * scale(c) * (c.head_dim + 8) * 0x1p-24);
                sum *= double{scale(c)};
                if (c.softcap != 0) sum = c.softcap * std::tanh(sum / c.softcap), error += c.softcap * 0x1p-20;
                s.push_back(sum);
                most = std::max(most, sum);
            }
        double l = c.sinks ? std::exp(sink - most) : 0;
        for (std::size_t t = 0; t < s.size(); ++t) {
            const double w = std::exp(s[t] - most);
            l += w;
            for (std::uint32_t d = 0; d < c.head_dim; ++d) out[d] += w * v[t][d];
        }
        // A score is a chain of head_dim roundings, which shifts its weight and the sum by as much; then one rounding a position.
        const double bound = (2 * error + (static_cast<double>(s.size()) + 32) * 0x1p-24) * largest;
        for (std::uint32_t d = 0; d < c.head_dim; ++d)
            ASSERT_NEAR(got[d], out[d] / l, bound) << "pos " << pos << ", head " << head << ", channel " << d << " of " << c.head_dim;
    }
};

}  // namespace quern::vulkan::test
