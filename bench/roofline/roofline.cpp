// SPDX-License-Identifier: Apache-2.0
#include "bench/roofline/roofline.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "bench/roofline/kernels.h"
#include "engine/core/clock.h"
#include "engine/core/memory.h"
#include "engine/core/thread_pool.h"
#include "engine/core/topology.h"
#include "kernels/table.h"

namespace quern::bench {
namespace {

using engine::Mapping;
using engine::Stopwatch;
using engine::ThreadPool;

constexpr std::size_t kKiB = 1024, kMiB = 1024 * kKiB;
constexpr std::size_t kLine = 64;
// Any value whose sum shows a word that was left out or read twice.
constexpr std::uint64_t kWord = 0x9e3779b97f4a7c15;

/// Threads of a pool, the first n of them.
struct Team {
    ThreadPool& pool;
    unsigned n;
};

/// `units` calls of work(unit) on the team. In seconds.
template <class Work>
double timed(Team team, std::uint32_t units, const Work& work) {
    struct Context {
        const Work& work;
        std::uint32_t units;
    } context{work, units};
    const engine::Job job{
        [](void* c, std::uint32_t step) { return step == 0 ? static_cast<Context*>(c)->units : engine::Job::kEnd; },
        [](void* c, std::uint32_t, std::uint32_t unit, std::uint32_t) { static_cast<Context*>(c)->work(unit); },
        &context};
    const Stopwatch watch;
    team.pool.run(job, team.n);
    return watch.seconds();
}

// --- Reading memory ---

/// A large chunk is one sequential walk a thread; small chunks interleave the threads.
struct Pattern {
    std::size_t chunk;    // bytes a thread takes at a time
    bool four_streams;    // four walks inside the chunk instead of one
    std::size_t ahead;    // prefetch distance, bytes; 0: none

    std::string name() const {
        std::string out = chunk >= kMiB ? std::to_string(chunk / kMiB) + " MiB" : std::to_string(chunk / kKiB) + " KiB";
        out += four_streams ? " chunks, 4 streams" : " chunks, 1 stream";
        return ahead ? out + ", prefetch " + std::to_string(ahead) + " B" : out;
    }
};

constexpr std::size_t kLargestChunk = 8 * kMiB;
constexpr Pattern kPatterns[] = {
    {kLargestChunk, false, 0}, {kLargestChunk, false, 1 * kKiB}, {kLargestChunk, false, 4 * kKiB},
    {kLargestChunk, true, 0},  {kLargestChunk, true, 1 * kKiB},  {64 * kKiB, false, 0},
    {64 * kKiB, false, 1 * kKiB}, {64 * kKiB, true, 0},          {64 * kKiB, true, 512},
};

class Reader {
public:
    Reader(Team team, Mapping memory) : memory_(std::move(memory)) {
        timed(team, chunks(kLargestChunk, memory_.size()), [&](std::uint32_t i) {
            std::byte* p = memory_.data() + i * kLargestChunk;
            for (std::size_t at = 0; at < kLargestChunk; at += sizeof kWord) std::memcpy(p + at, &kWord, sizeof kWord);
        });
    }

    /// 10^9 bytes a second over the next `bytes` of the buffer. Going on where the last walk ended, it comes back to a
    /// line only after all others, so caches smaller than the buffer do not help.
    Result<double> rate(Team team, const Pattern& p, std::size_t bytes) {
        bytes = std::min(bytes, memory_.size());
        if (next_ + bytes > memory_.size()) next_ = 0;
        const std::byte* from = memory_.data() + next_;
        next_ += bytes;
        const std::size_t gap = p.four_streams ? p.chunk / 4 : kLine, stride = p.four_streams ? kLine : 4 * kLine;
        std::atomic<std::uint64_t> sum = 0;
        const double seconds = timed(team, chunks(p.chunk, bytes), [&](std::uint32_t i) {
            sum += read_(from + i * p.chunk, gap, stride, p.chunk / (4 * kLine), p.ahead);
        });
        if (sum != bytes / sizeof kWord * kWord) {
            return Error{Errc::internal, "roofline: reading by " + p.name() + " did not give the sum of what is there"};
        }
        words_read_ += bytes / sizeof kWord;
        return static_cast<double>(bytes) / seconds * 1e-9;
    }
    std::size_t bytes() const { return memory_.size(); }
    std::uint64_t words_read() const { return words_read_; }

private:
    static std::uint32_t chunks(std::size_t chunk, std::size_t bytes) {
        return static_cast<std::uint32_t>(bytes / chunk);
    }

    Mapping memory_;
    ReadKernel read_ = read_kernel(kernels::cpu_features());
    std::size_t next_ = 0;
    std::uint64_t words_read_ = 0;
};

std::size_t buffer_size(const RooflineOptions& o) {
    const std::size_t available = engine::read_topology().memory_available;
    std::size_t bytes = o.quick ? 64 * kMiB : std::max(1024 * kMiB, 4 * last_level_cache());
    if (available) bytes = std::min(bytes, available / 3);
    if (o.max_bytes) bytes = std::min(bytes, o.max_bytes);
    return std::max<std::size_t>(1, bytes / kLargestChunk) * kLargestChunk;
}

Result<Reader> make_reader(Team team, std::size_t bytes, bool huge_pages) {
    auto memory = Mapping::create(bytes, "roofline's buffer", {.alignment = 4096, .huge_pages = huge_pages});
    if (!memory) return std::move(memory).error();
    return Reader(team, std::move(*memory));
}

/// Every pattern on huge pages and the best of them again, longer; that one on small pages too if wanted. The best goes
/// to `best`.
Status measure_reads(Team team, const RooflineOptions& o, Reader& reader, Roofline& out, const Pattern*& best) {
    out.buffer_bytes = reader.bytes();
    const std::size_t part = std::max(out.buffer_bytes / 4 / kLargestChunk, std::size_t{1}) * kLargestChunk;
    const std::uint64_t before = reader.words_read();
    const auto add = [&](Reader& from, bool huge, const Pattern& p, std::size_t bytes) -> Status {
        const Result<double> rate = from.rate(team, p, bytes);
        if (!rate) return rate.error();
        auto row = std::find_if(out.reads.begin(), out.reads.end(),
                                [&](const ReadRate& r) { return r.huge_pages == huge && r.pattern == p.name(); });
        if (row == out.reads.end()) row = out.reads.insert(row, {p.name(), huge, 0});
        row->gb_s = std::max(row->gb_s, *rate);
        if (*rate > out.read_gb_s) {
            out.read_gb_s = *rate;
            best = &p;
        }
        return {};
    };
    if (o.on_progress) o.on_progress("reading memory");
    for (const Pattern& p : kPatterns)
        if (Status s = add(reader, true, p, part); !s) return s;
    for (int i = 0; i < 2; ++i)
        if (Status s = add(reader, true, *best, 2 * part); !s) return s;
    out.checksum += reader.words_read() - before;
    if (!o.small_pages) return {};
    if (o.on_progress) o.on_progress("reading memory, small pages");
    auto small = make_reader(team, out.buffer_bytes, false);
    if (!small) return std::move(small).error();
    for (int i = 0; i < 2; ++i)
        if (Status s = add(*small, false, *best, 2 * part); !s) return s;
    out.checksum += small->words_read();
    return {};
}

// --- Arithmetic ---

/// Steps that take about `seconds` on one thread.
std::uint64_t calibrate(const PeakKernel& k, double seconds) {
    for (std::uint64_t n = 1 << 12; n < kMostSteps; n *= 2) {
        const Stopwatch watch;
        k.run(n);
        if (watch.seconds() * 2 > seconds) return n;
    }
    return kMostSteps;
}

/// A kernel on a team: a few units a thread, so that one which the system delays leaves its share to the others.
class Peak {
public:
    Peak(const PeakKernel& k, bool quick)
        : kernel_(&k), units_(quick ? 2 : 8), steps_(calibrate(k, quick ? 2e-4 : 2e-3)), expected_(k.run(steps_)) {}

    /// 10^9 operations a second; adds the multiply-adds to `count`.
    Result<double> rate(Team team, std::uint64_t& count) const {
        const std::uint32_t units = team.n * units_;
        std::atomic<std::uint64_t> done = 0;
        const double seconds = timed(team, units, [&](std::uint32_t) { done += kernel_->run(steps_); });
        if (expected_ < steps_ || done != units * expected_) {
            return Error{Errc::internal, std::string("roofline: ") + kernel_->name + " did not do all multiply-adds"};
        }
        count += done;
        return 2e-9 * static_cast<double>(done) / seconds;
    }

private:
    const PeakKernel* kernel_;
    std::uint32_t units_;  // a thread's
    std::uint64_t steps_, expected_;
};

/// What measures fastest, for a number of threads.
struct Best {
    const Pattern* pattern = nullptr;
    std::optional<Peak> int8, f32;
};

Status measure_peak(Team team, const PeakKernel& k, bool quick, Roofline& out, Best& best) {
    const Peak peak(k, quick);
    PeakRate row{k.name, k.arithmetic, 0};
    for (int i = 0; i < (quick ? 2 : 6); ++i) {
        const Result<double> rate = peak.rate(team, out.checksum);
        if (!rate) return rate.error();
        row.gop_s = std::max(row.gop_s, *rate);
    }
    out.peaks.push_back(row);
    double& most = k.arithmetic == Arithmetic::int8   ? out.int8_gop_s
                   : k.arithmetic == Arithmetic::bf16 ? out.bf16_gop_s
                                                      : out.f32_gop_s;
    if (row.gop_s <= most) return {};
    most = row.gop_s;
    if (k.arithmetic == Arithmetic::int8) best.int8 = peak;
    if (k.arithmetic == Arithmetic::f32) best.f32 = peak;
    return {};
}

}  // namespace

const char* to_string(Arithmetic a) {
    return a == Arithmetic::int8 ? "int8" : a == Arithmetic::bf16 ? "BF16" : "F32";
}

double Roofline::peak(Arithmetic a) const {
    return a == Arithmetic::int8 ? int8_gop_s : a == Arithmetic::bf16 ? bf16_gop_s : f32_gop_s;
}

double Roofline::least_seconds(double bytes, double operations, Arithmetic a) const {
    const double reading = read_gb_s > 0 ? bytes * 1e-9 / read_gb_s : 0;
    const double computing = peak(a) > 0 ? operations * 1e-9 / peak(a) : 0;
    return std::max(reading, computing);
}

std::size_t last_level_cache() {
    long best = 0;
#ifdef _SC_LEVEL3_CACHE_SIZE
    for (const int name : {_SC_LEVEL4_CACHE_SIZE, _SC_LEVEL3_CACHE_SIZE, _SC_LEVEL2_CACHE_SIZE})
        best = std::max(best, sysconf(name));
#endif
    return best > 0 ? static_cast<std::size_t>(best) : 32 * kMiB;
}

struct RooflineProbe::Impl {
    RooflineOptions options;
    std::unique_ptr<ThreadPool> pool;
    Reader reader;
    std::map<unsigned, Best> best;  // by threads
};

RooflineProbe::RooflineProbe(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RooflineProbe::~RooflineProbe() = default;

Result<std::unique_ptr<RooflineProbe>> RooflineProbe::create(unsigned threads, RooflineOptions options) {
    const engine::Topology topology = engine::read_topology();
    std::span<const int> cpus;
    if (threads <= topology.thread_cpus.size()) cpus = std::span(topology.thread_cpus).first(threads);
    auto pool = ThreadPool::create(threads, cpus);
    if (!pool) return std::move(pool).error();
    auto reader = make_reader({**pool, threads}, buffer_size(options), true);
    if (!reader) return std::move(reader).error();
    return std::unique_ptr<RooflineProbe>(
        new RooflineProbe(std::make_unique<Impl>(std::move(options), std::move(*pool), std::move(*reader))));
}

Result<Roofline> RooflineProbe::measure(unsigned threads) {
    const std::uint32_t features = kernels::cpu_features();
    const Team team{*impl_->pool, threads};
    Roofline out;
    Best best;
    out.threads = threads;
    for (const PeakKernel& k : peak_kernels()) {
        if (k.needs & ~features) continue;
        if (impl_->options.on_progress) impl_->options.on_progress(k.name);
        if (Status s = measure_peak(team, k, impl_->options.quick, out, best); !s) return std::move(s).error();
    }
    if (Status s = measure_reads(team, impl_->options, impl_->reader, out, best.pattern); !s)
        return std::move(s).error();
    impl_->best[threads] = best;
    return out;
}

Result<Roofline> RooflineProbe::now(unsigned threads) {
    auto known = impl_->best.find(threads);
    if (known == impl_->best.end()) {
        if (const Result<Roofline> all = measure(threads); !all) return all.error();
        known = impl_->best.find(threads);
    }
    const Best& best = known->second;
    const Team team{*impl_->pool, threads};
    Roofline out;
    out.threads = threads;
    const auto computing = [&](const std::optional<Peak>& peak, double& to) -> Status {
        if (!peak) return {};
        // The caller may run where another thread of the team must: the first pass lets the system sort that out.
        for (int i = 0; i < 2; ++i) {
            const Result<double> rate = peak->rate(team, out.checksum);
            if (!rate) return rate.error();
            to = *rate;
        }
        return {};
    };
    if (Status s = computing(best.int8, out.int8_gop_s); !s) return std::move(s).error();
    if (Status s = computing(best.f32, out.f32_gop_s); !s) return std::move(s).error();
    const Result<double> reading = impl_->reader.rate(team, *best.pattern, 512 * kMiB);
    if (!reading) return reading.error();
    out.read_gb_s = *reading;
    return out;
}

void add_limits(Roofline& to, const Roofline& r, double part) {
    to.threads = r.threads;
    for (const auto rate : {&Roofline::read_gb_s, &Roofline::int8_gop_s, &Roofline::bf16_gop_s, &Roofline::f32_gop_s})
        to.*rate += part * (r.*rate);
}

}  // namespace quern::bench
