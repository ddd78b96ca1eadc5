// SPDX-License-Identifier: Apache-2.0
// What this machine can do at most, measured in a few seconds: reading memory, int8 and float arithmetic. Benchmarks
// measure it around their own work and print their share of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "quern/result.hpp"

namespace quern::bench {

enum class Arithmetic { int8, bf16, f32 };
const char* to_string(Arithmetic);

/// One way of reading memory.
struct ReadRate {
    std::string pattern;     // "64 KiB chunks, 4 streams, prefetch 1024 B"
    bool huge_pages = false;  // asked for; the system may have declined
    double gb_s = 0;         // 10^9 bytes a second, all threads together
};

/// One instruction sequence at full speed, operands in registers.
struct PeakRate {
    std::string name;  // "AVX-512 VNNI"
    Arithmetic arithmetic = Arithmetic::int8;
    double gop_s = 0;  // 10^9 multiplications and additions a second, all threads together: a multiply-add counts 2
};

struct Roofline {
    unsigned threads = 0;
    double read_gb_s = 0;                            // best of reads
    double int8_gop_s = 0, bf16_gop_s = 0, f32_gop_s = 0;  // best of peaks; 0 where the CPU has no such instruction
    std::vector<ReadRate> reads;
    std::vector<PeakRate> peaks;
    std::size_t buffer_bytes = 0;  // what was read from
    std::uint64_t checksum = 0;    // words read and multiply-adds done, as the results add up to; see RooflineProbe

    double peak(Arithmetic a) const;
    /// Shortest time in seconds in which so many bytes can be read from memory and so many operations done.
    double least_seconds(double bytes, double operations, Arithmetic a) const;
};

struct RooflineOptions {
    bool quick = false;         // a small buffer and short runs: shows that it works, the figures mean little
    bool small_pages = false;   // read from pages as the system gives them too, not only from huge ones
    std::size_t max_bytes = 0;  // most memory to take; 0: four times the last-level cache, at least 1 GiB, at most a
                                // third of what is available
    std::function<void(std::string_view what)> on_progress = {};
};

/// Measures the limits, and again as often as asked: on a shared machine they change within seconds, so that a share
/// says something only of limits found right before and after. Holds the memory that it reads.
class RooflineProbe {
public:
    /// For up to `threads` threads (the caller is one of them). Errc::out_of_memory or io where the system gives no
    /// memory or threads.
    static Result<std::unique_ptr<RooflineProbe>> create(unsigned threads, RooflineOptions options = {});
    ~RooflineProbe();

    /// Everything, in about two seconds. Results are checked: the words read must add up, and every multiply-add must
    /// show in its accumulator, or Errc::internal says which did not.
    Result<Roofline> measure(unsigned threads);
    /// The three limits as they are now, in about a tenth of a second, by the ways that were best when
    /// measure(threads), which is called if it was not, found them. Checked like those.
    Result<Roofline> now(unsigned threads);

private:
    struct Impl;
    explicit RooflineProbe(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

/// Adds `part` of the limits found in one of several measurements with as many threads, for their mean.
void add_limits(Roofline& to, const Roofline& r, double part);

/// Last-level cache in bytes as the system says, 32 MiB where it does not.
std::size_t last_level_cache();

}  // namespace quern::bench
