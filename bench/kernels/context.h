// SPDX-License-Identifier: Apache-2.0
// What the kernel benchmarks share: tables, threads, the roofline, weights that no cache holds, the columns printed.
#pragma once

#include <benchmark/benchmark.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bench/roofline/roofline.h"
#include "engine/core/clock.h"
#include "engine/core/memory.h"
#include "engine/core/thread_pool.h"
#include "kernels/table.h"

namespace quern::bench {

/// Copies of one block of data, together larger than the last-level cache: whoever walks over them reads memory.
class Ring {
public:
    /// Makes the ring hold blocks of `bytes` that `fill` writes; nothing to do if it holds those named `key` already.
    Status prepare(const std::string& key, std::size_t bytes, std::size_t least_bytes,
                   const std::function<void(std::byte*)>& fill);
    std::byte* next() {
        std::byte* p = memory_.data() + index_ * stride_;
        index_ = index_ + 1 == copies_ ? 0 : index_ + 1;
        return p;
    }

private:
    std::string key_;
    engine::Mapping memory_;
    std::size_t stride_ = 0, copies_ = 0, index_ = 0;
};

/// Bytes that must come from memory and operations (a multiply-add counts 2) of one iteration.
struct Work {
    double bytes = 0, operations = 0;
    Arithmetic arithmetic = Arithmetic::f32;
};

struct Context {
    std::vector<const kernels::KernelTable*> tables;  // those this machine can run, best first
    std::vector<unsigned> threads;                    // counts to benchmark, ascending
    std::vector<Roofline> rooflines;                  // one a count, as the program started
    std::unique_ptr<RooflineProbe> probe;
    std::unique_ptr<engine::ThreadPool> pool;         // as many threads as the largest count
    std::size_t cold_bytes = 0;                       // least size of a ring
    Ring ring;

    /// Runs the loop, measures the limits before and after it, and sets the columns. `once` is one iteration;
    /// `checksum`, asked for afterwards, is exact.
    void run(benchmark::State& state, unsigned n_threads, const Work& work, const std::function<void()>& once,
             const std::function<double()>& checksum);
};

/// Registers "name", timed by the clock on the wall. body: one run of the benchmark.
void add(const std::string& name, std::function<void(benchmark::State&)> body);

/// n floats in [-1, 1), the same on every run.
std::vector<float> random_floats(std::size_t n, std::uint32_t seed = 1);
/// FNV-1a of the bits: equal results give equal numbers on every table and thread count.
double checksum(std::span<const float> values);
double checksum_bytes(std::span<const std::byte> bytes);

struct Shape {
    std::uint32_t rows, k;
    std::string name() const { return std::to_string(rows) + "x" + std::to_string(k); }
};
inline constexpr Shape kShapes[] = {{576, 1536}, {2048, 8192}, {3584, 18944}};
inline constexpr std::uint32_t kColumns[] = {1, 2, 4, 8, 16, 32, 128, 512};

// One function a file; each registers its benchmarks. The context outlives them.
void register_matmul(Context& context);
void register_ops(Context& context);
void register_attention(Context& context);
void register_sampling(Context& context);
void register_threads(Context& context);
void register_openblas(Context& context);
void register_eigen(Context& context);

}  // namespace quern::bench
