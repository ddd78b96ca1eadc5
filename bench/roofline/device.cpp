// SPDX-License-Identifier: Apache-2.0
#include "bench/roofline/device.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <utility>

#include "engine/core/clock.h"

namespace quern::bench {
namespace {

using vulkan::Buffer;
using vulkan::Commands;
using vulkan::Device;
using vulkan::Groups;
using vulkan::Kernel;
using vulkan::MemoryKind;

constexpr std::uint32_t kThreads = 256;
constexpr std::size_t kMiB = std::size_t{1} << 20;

struct CopyPush {
    std::uint64_t from, to;
    std::uint32_t n, flip;
};
struct ReadPush {
    std::uint64_t from, to;
    std::uint32_t n, rounds;
};
struct PeakPush {
    std::uint64_t to;
    std::uint32_t n;
    float scale = 1, step = 1;
    std::int32_t ones = 1;
    std::uint32_t pad[2] = {};
};

/// So many groups, a power of two, in two dimensions: every device takes 65535 of each.
Groups grid(std::uint32_t groups) {
    const std::uint32_t x = std::min(groups, 32768u);
    return {x, groups / x};
}

Error wrong(const std::string& module) {
    return {Errc::internal, "roofline: the shader " + module + " did not do all of its work: is the driver sound?"};
}

class Probe {
public:
    Probe(Device& device, bool quick)
        : device_(device), quick_(quick), is_cpu_(device.info().kind == vulkan::DeviceKind::cpu) {
        out_.gpu_clock = device.has(vulkan::kTimestamps);
    }

    Result<DeviceRoofline> measure() {
        if (Status s = memory(); !s) return s.error();
        using namespace vulkan;
        const struct {
            const char* module;
            Feature needs;  // 0: nothing
            Status (Probe::*measure)();
        } peaks[] = {{"peak_f32", Feature{}, &Probe::f32},
                     {"peak_f16", kFloat16, &Probe::f16},
                     {"peak_i8", kIntegerDot, &Probe::int8},
                     {"peak_coopmat", kCoopmat, &Probe::coopmat}};
        for (const auto& p : peaks) {
            if (p.needs && !device_.has(p.needs)) {
                std::uint32_t bit = 0;
                while (!(p.needs >> bit & 1u)) ++bit;
                out_.missing.push_back(std::string(p.module) + ": the device has no " + std::string(feature_name(bit)));
            } else if (const Status s = (this->*p.measure)(); !s) {
                if (s.error().code != Errc::unsupported) return s.error();
                out_.missing.push_back(std::string(p.module) + ": " + s.error().message);
            }
        }
        return std::move(out_);
    }

private:
    /// Seconds of one dispatch.
    template <class Push>
    Result<double> seconds(const Kernel& kernel, const Push& push, Groups groups, int repeats = 1) {
        Result<Commands> c = device_.record();
        if (!c) return c.error();
        if (out_.gpu_clock) c->timestamp();
        c->dispatch(kernel, push, groups);
        if (out_.gpu_clock) c->timestamp();
        if (Status s = c->finish(); !s) return s.error();
        double best = 1e30;
        for (int i = 0; i < repeats; ++i) {
            const engine::Stopwatch watch;
            if (Status s = device_.run(*c, "roofline"); !s) return s.error();
            double taken = watch.seconds();
            if (out_.gpu_clock) {
                const Result<std::vector<double>> t = device_.timestamps(*c);
                if (!t) return t.error();
                if ((*t)[1] > 0) taken = (*t)[1];
            }
            best = std::min(best, taken);
        }
        return best;
    }

    Status memory() {
        const vulkan::DeviceInfo& info = device_.info();
        std::size_t bytes = quick_ ? 16 * kMiB : is_cpu_ ? 256 * kMiB : 1024 * kMiB;
        while (bytes > kMiB && (bytes > info.max_allocation || 2 * bytes > info.free_bytes / 2)) bytes /= 2;
        out_.buffer_bytes = bytes;
        Result<Buffer> from = device_.allocate(bytes, MemoryKind::device, "roofline's first buffer");
        if (!from) return from.error();
        Result<Buffer> to = device_.allocate(bytes, MemoryKind::device, "roofline's second buffer");
        if (!to) return to.error();
        // Words that differ, so that none can be left out: 0, 1, 2, ...
        std::vector<std::uint32_t> words(kMiB);
        for (std::size_t at = 0; at < bytes; at += 4 * kMiB) {
            for (std::size_t i = 0; i < kMiB; ++i) words[i] = static_cast<std::uint32_t>(at / 4 + i);
            if (Status s = device_.write(*from, at, std::as_bytes(std::span(words))); !s) return s;
        }
        const auto n = static_cast<std::uint32_t>(bytes / 16);
        for (const std::uint32_t steps : {1u, 2u, 4u, 8u}) {
            const std::vector<std::uint32_t> constants = {kThreads, steps};
            DeviceRate rate{std::to_string(kThreads) + " threads, " + std::to_string(steps) +
                                (steps == 1 ? " load" : " loads") + " under way",
                            0, 0};
            const Result<const Kernel*> copy = device_.kernel("copy", constants),
                                        read = device_.kernel("read", constants);
            if (!copy || !read) return copy ? read.error() : copy.error();
            const Result<double> copied = seconds(**copy, CopyPush{from->address(), to->address(), n, steps},
                                                  grid(n / (kThreads * steps)), repeats());
            if (!copied) return copied.error();
            if (Status s = check_copy(*to, steps); !s) return s;
            const std::uint32_t rounds = 16 / steps;  // 64 KiB a group
            const Result<double> taken = seconds(**read, ReadPush{from->address(), to->address(), n, rounds},
                                                 grid(n / (kThreads * 16)), repeats());
            if (!taken) return taken.error();
            if (Status s = check_read(*to, n / 16, bytes / 4); !s) return s;
            rate.copy_gb_s = 2e-9 * static_cast<double>(bytes) / *copied;
            rate.read_gb_s = 1e-9 * static_cast<double>(bytes) / *taken;
            out_.copy_gb_s = std::max(out_.copy_gb_s, rate.copy_gb_s);
            out_.read_gb_s = std::max(out_.read_gb_s, rate.read_gb_s);
            out_.rates.push_back(std::move(rate));
        }
        return {};
    }

    /// The first and last 4 MiB: each word is its number, flipped.
    Status check_copy(const Buffer& to, std::uint32_t flip) {
        std::vector<std::uint32_t> words(std::min(kMiB, to.size() / 4));
        for (const std::size_t at : {std::size_t{0}, to.size() - words.size() * 4}) {
            if (Status s = device_.read(to, at, std::as_writable_bytes(std::span(words))); !s) return s;
            for (std::size_t i = 0; i < words.size(); ++i)
                if (words[i] != ((at / 4 + i) ^ flip)) return wrong("copy");
        }
        return {};
    }

    /// Exclusive or is the same in any order: that of 0 .. n - 1 is 0 for a multiple of 4, so each thread's own word is
    /// compared for the first group and all of them together.
    Status check_read(const Buffer& to, std::uint32_t n_threads, std::size_t n_words) {
        std::vector<std::uint32_t> words(n_threads);
        if (Status s = device_.read(to, 0, std::as_writable_bytes(std::span(words))); !s) return s;
        std::uint32_t all = 0, expected = 0;
        for (const std::uint32_t w : words) all ^= w;
        for (std::size_t i = 0; i < n_words; ++i) expected ^= static_cast<std::uint32_t>(i);
        for (std::uint32_t t = 0; t < kThreads; ++t) {
            std::uint32_t mine = 0;
            for (std::uint32_t load = 0; load < 16; ++load)
                for (std::uint32_t w = 0; w < 4; ++w) mine ^= 4 * (t + load * kThreads) + w;
            if (words[t] != mine) return wrong("read");
        }
        return all == expected ? Status() : wrong("read");
    }

    int repeats() const { return quick_ ? 2 : 6; }
    std::uint32_t n_groups() const { return is_cpu_ ? 64 : 4096; }

    /// Doubles n until a dispatch takes long enough to be timed and short enough for any watchdog; then the best of
    /// several. `check` looks at the words that n steps leave.
    template <class Check>
    Result<double> rate(const char* module, std::vector<std::uint32_t> constants, std::uint32_t subgroup,
                        std::size_t bytes, std::uint32_t most, double operations_of_step, const Check& check) {
        const Result<const Kernel*> kernel = device_.kernel(module, constants, subgroup);
        if (!kernel) return kernel.error();
        const Result<Buffer> words = device_.allocate(bytes, MemoryKind::device, "roofline's results");
        if (!words) return words.error();
        PeakPush push;
        push.to = words->address();
        const double enough = quick_ ? 2e-4 : 2e-2;
        for (push.n = 1;; push.n *= 2) {
            const Result<double> once = seconds(**kernel, push, {n_groups()});
            if (!once) return once.error();
            if (*once > enough || push.n * 2 > most) break;
        }
        if (Status s = clear(*words); !s) return s.error();
        const Result<double> first = seconds(**kernel, push, {n_groups()});
        if (!first) return first.error();
        std::vector<std::uint32_t> got(bytes / 4);
        if (Status s = device_.read(*words, 0, std::as_writable_bytes(std::span(got))); !s) return s.error();
        if (!check(got, push.n)) return wrong(module);
        const Result<double> best = seconds(**kernel, push, {n_groups()}, repeats());
        if (!best) return best.error();
        return 1e-9 * operations_of_step * push.n * n_groups() / std::min(*first, *best);
    }

    Status clear(const Buffer& words) {
        Result<Commands> c = device_.record();
        if (!c) return c.error();
        c->fill(words, 0, words.size() / 4 * 4, 0);
        if (Status s = c->finish(); !s) return s;
        return device_.run(*c, "roofline");
    }

    /// A thread's word depends on n and on its lane modulo 4.
    template <class Expected>
    Status by_thread(const char* module, double operations, std::uint32_t most, double& result,
                     const Expected& expected) {
        const std::size_t n_threads = std::size_t{n_groups()} * kThreads;
        const Result<double> r = rate(module, {kThreads}, 0, n_threads * 4, most, operations * kThreads,
                                      [&](const std::vector<std::uint32_t>& got, std::uint32_t n) {
                                          std::uint32_t right[4];
                                          for (std::uint32_t lane = 0; lane < 4; ++lane)
                                              right[lane] = expected(n, lane);
                                          for (std::size_t i = 0; i < got.size(); ++i)
                                              if (got[i] != right[i % 4]) return false;
                                          return true;
                                      });
        if (!r) return r.error();
        result = *r;
        return {};
    }

    // Chains begin at 0 .. 31, plus the lane, and every step adds 1 to each.
    Status f32() {
        return by_thread("peak_f32", 2 * 128, 1u << 16, out_.f32_gop_s,
                         [](std::uint32_t n, std::uint32_t lane) { return 496 + 32 * lane + 128 * n; });
    }
    Status f16() {
        return by_thread("peak_f16", 2 * 8192, 1u << 18, out_.f16_gop_s,
                         [](std::uint32_t n, std::uint32_t lane) { return (496 + 32 * lane + 8192) * n; });
    }
    Status int8() {
        return by_thread("peak_i8", 8 * 64, 1u << 18, out_.int8_gop_s, [](std::uint32_t n, std::uint32_t lane) {
            std::uint32_t sum = 0;
            for (std::uint32_t i = 0; i < 16; ++i) {
                std::uint32_t x = 4 * i + lane;
                for (std::uint32_t k = 0; k < 4 * n; ++k)
                    x += static_cast<std::uint32_t>(static_cast<std::int32_t>(static_cast<std::int8_t>(x & 0xff)));
                sum += x;
            }
            return sum;
        });
    }

    Status coopmat() {
        const std::uint32_t size = device_.info().subgroup, subgroups = kThreads / std::max(size, 1u);
        const std::size_t count = std::size_t{n_groups()} * subgroups;
        const auto check = [&](const std::vector<std::uint32_t>& got, std::uint32_t n) {
            // Eight chains from 0 .. 7 with 16 n x 4 added to each element: a power-of-two bound keeps floats exact.
            const float right = 28.0f + 512.0f * static_cast<float>(n);
            std::uint32_t bits;
            std::memcpy(&bits, &right, 4);
            return got[0] % count == 0 && got[0] != 0 &&
                   std::all_of(got.begin() + 4, got.end(), [&](std::uint32_t w) { return w == bits; });
        };
        const Result<double> r =
            rate("peak_coopmat", {kThreads, subgroups}, device_.has(vulkan::kSubgroupSize) ? size : 0,
                 16 + count * 1024, 1u << 15, 2.0 * 4096 * 32 * subgroups, check);
        if (!r) return r.error();
        out_.coopmat_gop_s = *r;
        return {};
    }

    Device& device_;
    bool quick_, is_cpu_;
    DeviceRoofline out_;
};

}  // namespace

Result<DeviceRoofline> measure(vulkan::Device& device, bool quick) { return Probe(device, quick).measure(); }

}  // namespace quern::bench
