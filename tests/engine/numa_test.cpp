// SPDX-License-Identifier: Apache-2.0
// Placement over nodes that this machine need not have: the calls are recorded instead of made.
#include "engine/core/numa.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <map>
#include <vector>

#include "engine/backend/cpu_steps.h"
#include "engine/core/memory.h"
#include "engine/core/thread_pool.h"
#include "engine/run/executor.h"
#include "engine/run/sequence.h"
#include "tests/support/models.h"

namespace quern::engine {
namespace {

struct Call {
    const std::byte* first;
    std::size_t size;
    std::vector<int> nodes;
};

/// Records what is asked for, as a system that agrees.
struct Recorder {
    std::vector<Call> calls;
    Numa numa(NumaMode mode, std::vector<int> nodes) {
        return {mode, std::move(nodes), [this](std::span<std::byte> pages, std::span<const int> n) {
                    calls.push_back({pages.data(), pages.size(), {n.begin(), n.end()}});
                    return true;
                }};
    }
};

std::size_t page_size() { return static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)); }

TEST(Numa, OneNodeAsksForNothing) {
    Recorder r;
    auto memory = Mapping::create(64 * page_size(), "test");
    for (const NumaMode mode : {NumaMode::off, NumaMode::interleave, NumaMode::local}) {
        const Numa one = r.numa(mode, {0});
        one.interleave(memory->bytes());
        one.local(memory->data(), 64, page_size());
        EXPECT_EQ(one.n_parts(), 1u);
    }
    const Numa off = r.numa(NumaMode::off, {0, 1});
    off.interleave(memory->bytes());
    off.local(memory->data(), 64, page_size());
    EXPECT_TRUE(r.calls.empty());
}

TEST(Numa, InterleavesWholePagesOverAllNodes) {
    Recorder r;
    auto memory = Mapping::create(8 * page_size(), "test", {.alignment = page_size()});
    r.numa(NumaMode::interleave, {0, 3}).interleave(memory->bytes().subspan(10, 3 * page_size()));
    ASSERT_EQ(r.calls.size(), 1u);
    EXPECT_EQ(r.calls[0].first, memory->data() + page_size());
    EXPECT_EQ(r.calls[0].size, 2 * page_size());
    EXPECT_EQ(r.calls[0].nodes, (std::vector<int>{0, 3}));
    r.numa(NumaMode::interleave, {0, 3}).interleave(memory->bytes().subspan(10, 20));
    EXPECT_EQ(r.calls.size(), 1u) << "no whole page in it";
}

TEST(Numa, LocalCutsAMatrixLikeThePoolItsUnits) {
    Recorder r;
    const std::size_t page = page_size();
    auto memory = Mapping::create(10 * page, "test", {.alignment = page});
    r.numa(NumaMode::local, {1, 4, 6}).local(memory->data(), 10, page);
    ASSERT_EQ(r.calls.size(), 3u);
    std::size_t at = 0;
    for (std::uint32_t i = 0; i < 3; ++i) {
        EXPECT_EQ(r.calls[i].first, memory->data() + at);
        EXPECT_EQ(r.calls[i].size, (even_part(10, i + 1, 3) - even_part(10, i, 3)) * page);
        EXPECT_EQ(r.calls[i].nodes, std::vector<int>{i == 0 ? 1 : i == 1 ? 4 : 6});
        at += r.calls[i].size;
    }
    EXPECT_EQ(at, 10 * page);
}

TEST(Numa, TheSystemIsAskedAndMayRefuse) {
    auto memory = Mapping::create(4 * page_size(), "test", {.alignment = page_size()});
    const std::vector<int> none{1023}, wrong{-1};
    EXPECT_FALSE(bind_pages(memory->bytes(), none)) << "no machine has this node";
    EXPECT_FALSE(bind_pages(memory->bytes(), wrong));
    for (std::byte& b : memory->bytes()) b = std::byte{1};  // the memory is as good as before
}

/// Logits after `tokens` and one more.
std::vector<float> logits(const gguf::File& file, const ExecutorOptions& o, std::span<const std::int32_t> tokens) {
    auto e = Executor::create(file, o);
    EXPECT_TRUE(e) << e.error().message;
    Sequence s(**e, 256);
    EXPECT_TRUE(s.append(tokens));
    EXPECT_TRUE(s.run());
    const std::int32_t next = 7;
    EXPECT_TRUE(s.append({&next, 1}));
    EXPECT_TRUE(s.run());
    return {s.logits().begin(), s.logits().end()};
}

TEST(Numa, AModelOnThreeFakeNodesGivesTheSameBits) {
    auto file = gguf::File::open((test::tiny_dir() / "llama-q4_0.gguf").string());
    ASSERT_TRUE(file) << file.error().message;
    std::vector<std::int32_t> tokens;
    for (int i = 0; i < 70; ++i) tokens.push_back(i * 5 % 200);
    ExecutorOptions plain;
    plain.n_ctx = 256;
    plain.n_threads = plain.n_threads_batch = 1;
    const std::vector<float> want = logits(*file, plain, tokens);
    for (const NumaMode mode : {NumaMode::interleave, NumaMode::local}) {
        Recorder r;
        ExecutorOptions o = plain;
        o.n_threads = 2;
        o.n_threads_batch = 5;
        o.places.queue = {0, 0, 1, 2, 2};
        o.places.nodes = {0, 1, 2};
        o.places.cpus.resize(5);
        o.numa = r.numa(mode, o.places.nodes);
        EXPECT_EQ(want, logits(*file, o, tokens));
        ASSERT_FALSE(r.calls.empty());
        std::map<std::vector<int>, std::size_t> bytes;
        for (const Call& c : r.calls) bytes[c.nodes] += c.size;
        if (mode == NumaMode::interleave) {
            EXPECT_EQ(r.calls.size(), 2u) << "weights and KV cache";
            EXPECT_EQ(bytes.begin()->first, (std::vector<int>{0, 1, 2}));
        } else {
            for (const int node : {0, 1, 2}) EXPECT_GT(bytes[{node}], 0u);
        }
    }
}

TEST(DecodeOrPrefill, ByChunksAndBucket) {
    const std::vector<std::int32_t> tokens(32);
    const SeqChunk one{nullptr, 0, 32, 0};
    std::vector<SeqChunk> each;
    for (std::uint32_t i = 0; i < 32; ++i) each.push_back({nullptr, i, 1, 0});
    RunArgs prompt, streams;
    prompt.tokens = streams.tokens = tokens;
    prompt.chunks = {&one, 1};
    streams.chunks = each;
    EXPECT_FALSE(CpuBackend::decodes(32, prompt));
    EXPECT_TRUE(CpuBackend::decodes(32, streams)) << "a token each of 32 sequences";
    prompt.tokens = std::span(tokens).first(7);
    EXPECT_TRUE(CpuBackend::decodes(8, prompt));
}

TEST(Numa, UnitsOfAMatmulAreNumberedNodeAfterNode) {
    // A matmul of three parts, cut for three nodes: the rows that its units write, in the order of the units.
    Step s;
    s.fn = kStepMatmul.fn;
    s.count = kStepMatmul.count;
    s.n_parts = 3;
    s.n_nodes = 3;
    static constexpr std::byte kPanels[16] = {};
    const std::uint32_t panels[3] = {9, 4, 5};
    for (std::uint32_t i = 0; i < 3; ++i) {
        s.parts[i].w.n_rows = panels[i] * kernels::kLanes;
        s.parts[i].w.n_k = i;  // tells the part
        s.parts[i].panels_per_unit = 2;
        s.parts[i].w.panels = kPanels;
        s.parts[i].w.panel_stride = 1;
        s.parts[i].kernel = [](const kernels::MatmulArgs& a) {
            *a.y = static_cast<float>(a.n_k * 100 + static_cast<std::uint32_t>(a.w - kPanels));
        };
    }
    float y[256] = {};
    for (StepPart& p : s.parts) p.out.f32 = y;
    const std::int32_t token = 0;
    RunArgs args;
    args.tokens = {&token, 1};
    const CpuRun run{&args};
    const std::uint32_t n = s.count(s, run);
    ASSERT_EQ(n, 5u + 2 + 3);
    std::vector<int> order;
    for (std::uint32_t unit = 0; unit < n; ++unit) {
        std::fill(std::begin(y), std::end(y), -1.f);
        s.fn(s, run, unit, nullptr);
        for (const float v : y)
            if (v >= 0) order.push_back(static_cast<int>(v));
    }
    // Units of the parts: 0 2 4 6 8 | 100 102 | 200 202 204. Thirds of 5, 2 and 3 units: 1 2 2, 0 1 1, 1 1 1.
    EXPECT_EQ(order, (std::vector<int>{0, 200, 2, 4, 100, 202, 6, 8, 102, 204}));
}

}  // namespace
}  // namespace quern::engine
