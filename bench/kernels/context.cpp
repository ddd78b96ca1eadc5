// SPDX-License-Identifier: Apache-2.0
#include "bench/kernels/context.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <utility>

namespace quern::bench {

Status Ring::prepare(const std::string& key, std::size_t bytes, std::size_t least_bytes,
                     const std::function<void(std::byte*)>& fill) {
    index_ = 0;
    if (key == key_) return {};
    key_.clear();
    stride_ = (bytes + 63) / 64 * 64;
    copies_ = std::max<std::size_t>(1, (least_bytes + stride_ - 1) / stride_);
    if (memory_.size() < copies_ * stride_) {
        memory_ = {};
        auto memory = engine::Mapping::create(copies_ * stride_, "kernels_bench's weights", {.huge_pages = true});
        if (!memory) return std::move(memory).error();
        memory_ = std::move(*memory);
    }
    fill(memory_.data());
    for (std::size_t i = 1; i < copies_; ++i) std::memcpy(memory_.data() + i * stride_, memory_.data(), bytes);
    key_ = key;
    return {};
}

void Context::run(benchmark::State& state, unsigned n_threads, const Work& work, const std::function<void()>& once,
                  const std::function<double()>& checksum) {
    const Result<Roofline> before = probe->now(n_threads);
    const engine::Stopwatch watch;
    for (auto _ : state) once();
    const double seconds = watch.seconds() / static_cast<double>(state.iterations());
    const Result<Roofline> after = probe->now(n_threads);
    for (const auto* limits : {&before, &after})
        if (!*limits) return state.SkipWithError(limits->error().message.c_str());

    Roofline r;
    add_limits(r, *before, 0.5);
    add_limits(r, *after, 0.5);
    const double read_share = r.least_seconds(work.bytes, 0, work.arithmetic) / seconds;
    const double peak_share = r.least_seconds(0, work.operations, work.arithmetic) / seconds;
    state.counters["GB/s"] = work.bytes / seconds * 1e-9;
    if (work.operations > 0) state.counters["GOP/s"] = work.operations / seconds * 1e-9;
    state.counters["share"] = std::max(read_share, peak_share);
    state.counters["checksum"] = checksum();
    state.SetLabel(peak_share > read_share ? std::string("of ") + to_string(work.arithmetic) + " peak"
                                           : "of read bandwidth");
}

void add(const std::string& name, std::function<void(benchmark::State&)> body) {
    benchmark::RegisterBenchmark(name.c_str(), std::move(body))->UseRealTime()->Unit(benchmark::kMicrosecond);
}

std::vector<float> random_floats(std::size_t n, std::uint32_t seed) {
    std::minstd_rand random(seed);
    std::vector<float> out(n);
    for (float& x : out) x = static_cast<float>(random() >> 7) * 0x1p-23f - 1.0f;  // minstd gives 31 bits
    return out;
}

double checksum_bytes(std::span<const std::byte> bytes) {
    std::uint32_t hash = 2166136261u;
    for (const std::byte b : bytes) hash = (hash ^ static_cast<std::uint32_t>(b)) * 16777619u;
    return hash;
}

double checksum(std::span<const float> values) { return checksum_bytes(std::as_bytes(values)); }

}  // namespace quern::bench
