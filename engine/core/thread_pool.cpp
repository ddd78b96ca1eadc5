// SPDX-License-Identifier: Apache-2.0
#include "engine/core/thread_pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <cassert>
#include <chrono>
#include <climits>
#include <cstddef>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "formats/text.h"

namespace quern::engine {
namespace {

// Two 64-byte lines: the prefetchers of x86 fetch lines in pairs, and some ARM cores have lines of 128 bytes.
constexpr std::size_t kLine = 128;
// Longer than the imbalance of a step and than most gaps between steps, short enough that an idle process costs
// nothing.
constexpr std::chrono::microseconds kSpin{80};
// With more threads than CPUs, spinning keeps the awaited thread from running.
constexpr std::chrono::microseconds kSpinOversubscribed{2};

// Looking into all queues is what a thread does at the end of a step: 50 ns each where others write to them.
constexpr std::uint32_t kMostQueues = 8;

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("isb");  // "yield" is a no-op on most cores
#endif
}

/// A number that threads wait on until it differs from what they saw.
struct Signal {
    std::atomic<std::uint32_t> value{0};
    std::atomic<std::uint32_t> sleepers{0};

    /// Moves the number on: all that the caller wrote before is visible to whoever sees it.
    void advance() {
        // Sequentially consistent, as in wait(): either we see the sleeper or it sees the new value.
        value.fetch_add(1, std::memory_order_seq_cst);
        if (sleepers.load(std::memory_order_seq_cst) == 0) return;
#ifdef __linux__
        // Not std::atomic::notify: libstdc++ 12 sends 32-bit values through a process-wide table of proxies.
        ::syscall(SYS_futex, &value, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
#else
        value.notify_all();
#endif
    }

    /// Returns the value once it is no longer `seen`: spins for at most `spin`, then sleeps.
    std::uint32_t wait(std::uint32_t seen, std::chrono::microseconds spin) {
        std::uint32_t v = value.load(std::memory_order_acquire);
        if (v != seen) return v;
        const auto deadline = std::chrono::steady_clock::now() + spin;
        do {
            for (int i = 0; i < 32; ++i) {
                pause();
                v = value.load(std::memory_order_acquire);
                if (v != seen) return v;
            }
        } while (std::chrono::steady_clock::now() < deadline);

        sleepers.fetch_add(1, std::memory_order_seq_cst);
        while ((v = value.load(std::memory_order_seq_cst)) == seen) {
#ifdef __linux__
            ::syscall(SYS_futex, &value, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
#else
            value.wait(seen, std::memory_order_seq_cst);
#endif
        }
        sleepers.fetch_sub(1, std::memory_order_relaxed);
        return v;
    }
};
static_assert(sizeof(std::atomic<std::uint32_t>) == 4, "a futex is four bytes");

/// A queue of the step at hand, in one word, so that one fetch_add draws a unit and says whether it is a unit of a step
/// that is still open: the queue's units (20 bits), units drawn so far (20).
struct Ticket {
    std::uint64_t word;
    static std::uint64_t make(std::uint32_t units) { return std::uint64_t{units} << 20; }
    std::uint32_t units() const { return static_cast<std::uint32_t>(word >> 20) & 0xfffffu; }
    std::uint32_t drawn() const { return static_cast<std::uint32_t>(word) & 0xfffffu; }
};

std::uint32_t allowed_cpus() {
#ifdef __linux__
    cpu_set_t set;
    if (::sched_getaffinity(0, sizeof set, &set) == 0) return static_cast<std::uint32_t>(CPU_COUNT(&set));
#endif
    return std::thread::hardware_concurrency();  // 0 where not known
}

/// Blocks every signal in this scope, so that threads started in it leave signals to the program's own threads.
class SignalsBlocked {
public:
    SignalsBlocked() {
        sigset_t all;
        ::sigfillset(&all);
        ::pthread_sigmask(SIG_SETMASK, &all, &before_);
    }
    ~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
    SignalsBlocked(const SignalsBlocked&) = delete;
    SignalsBlocked& operator=(const SignalsBlocked&) = delete;

private:
    sigset_t before_;
};

Status pin(std::thread& thread, const std::vector<int>& cpus) {
#ifdef __linux__
    cpu_set_t set;
    CPU_ZERO(&set);
    for (const int cpu : cpus) {
        if (cpu < 0 || cpu >= CPU_SETSIZE) {
            return Error{Errc::invalid_argument, cat("CPU ", cpu, " is not in 0 to ", CPU_SETSIZE - 1)};
        }
        CPU_SET(static_cast<std::size_t>(cpu), &set);
    }
    if (const int code = ::pthread_setaffinity_np(thread.native_handle(), sizeof set, &set); code != 0) {
        return Error{Errc::io, cat("cannot pin a thread to CPU ", cpus[0], ": ", std::generic_category().message(code),
                                   "; choose CPUs from the process's affinity mask")};
    }
#else
    static_cast<void>(thread), static_cast<void>(cpus);
#endif
    return {};
}

}  // namespace

struct ThreadPool::Impl {
    std::uint32_t n_threads = 1;
    std::chrono::microseconds spin = kSpin;

    /// A stretch of the step's units. One a thread as far as that goes, so that a thread walks through weights in the order
    /// in which they lie; or one a NUMA node.
    struct alignas(kLine) Queue {
        std::atomic<std::uint64_t> ticket{0};
        std::uint32_t first = 0;                   // unit; written between steps, as are job, step and total
    };
    std::vector<Queue> queues;
    std::vector<std::uint32_t> home;               // [thread] the queue it empties first; ascending without nodes
    bool by_node = false;

    alignas(kLine) Signal step_signal;             // moves on with every step, and at the end of a run
    alignas(kLine) std::atomic<std::uint32_t> done{0};
    std::atomic<bool> finished{true};
    std::atomic<std::uint32_t> limit{1};           // threads of the current run
    std::atomic<bool> stop{false};
    alignas(kLine) Signal limit_signal;            // threads beyond the limit sleep on this one

    // Written between steps, read by holders of a unit: the ticket orders the two.
    Job job{};
    std::uint32_t step = 0, total = 0;

    std::vector<std::thread> threads;

    /// Draws and does one unit; false if the open step has none left.
    bool work_one(std::uint32_t thread) {
        const std::size_t n = queues.size();
        std::size_t at = home[thread];
        for (std::size_t i = 0; i < n; ++i, at = at + 1 == n ? 0 : at + 1) {
            Queue& q = queues[at];
            Ticket t{q.ticket.load(std::memory_order_acquire)};
            if (t.drawn() >= t.units()) continue;
            t.word = q.ticket.fetch_add(1, std::memory_order_acq_rel);
            if (t.drawn() >= t.units()) continue;
            const std::uint32_t all = total;
            job.unit(job.context, step, q.first + t.drawn(), thread);
            if (done.fetch_add(1, std::memory_order_acq_rel) + 1 == all) open_step(step + 1);
            return true;
        }
        return false;
    }

    /// Opens the next step that has units, or ends the run. Nobody holds a unit now.
    void open_step(std::uint32_t next) {
        done.store(0, std::memory_order_relaxed);
        std::uint32_t n;
        while ((n = job.units(job.context, next)) == 0) ++next;
        if (n == Job::kEnd) {
            // The caller may now start another run: only the signal, which just moves on, comes after.
            finished.store(true, std::memory_order_release);
        } else {
            assert(n <= Job::kMaxUnits);
            step = next;
            total = n;
            // Without nodes: the queues at which the threads of this run are at home.
            const auto parts = by_node ? static_cast<std::uint32_t>(queues.size())
                                       : home[limit.load(std::memory_order_relaxed) - 1] + 1;
            for (std::uint32_t i = 0; i < parts; ++i) queues[i].first = even_part(n, i, parts);
            for (std::uint32_t i = 0; i < parts; ++i) {
                // An empty queue is left exhausted, as it is. Writing to it could come after the step's end, when
                // somebody else has opened the next: the step cannot end before all queues with units are written.
                if (const std::uint32_t units = even_part(n, i + 1, parts) - even_part(n, i, parts); units != 0)
                    queues[i].ticket.store(Ticket::make(units), std::memory_order_release);
            }
        }
        step_signal.advance();
    }

    void worker(std::uint32_t thread) {
        for (;;) {
            const std::uint32_t limit_seen = limit_signal.value.load(std::memory_order_acquire);
            if (stop.load(std::memory_order_acquire)) return;
            if (thread >= limit.load(std::memory_order_acquire)) {
                limit_signal.wait(limit_seen, std::chrono::microseconds(0));
                continue;
            }
            const std::uint32_t seen = step_signal.value.load(std::memory_order_acquire);
            while (work_one(thread)) {}
            if (stop.load(std::memory_order_acquire)) return;
            step_signal.wait(seen, spin);
        }
    }
};

ThreadPool::ThreadPool() : impl_(std::make_unique<Impl>()) {}

ThreadPool::~ThreadPool() {
    impl_->stop.store(true, std::memory_order_release);
    impl_->limit_signal.advance();
    impl_->step_signal.advance();
    for (std::thread& t : impl_->threads) t.join();
}

Result<std::unique_ptr<ThreadPool>> ThreadPool::create(std::uint32_t n_threads, std::span<const int> cpus) {
    if (n_threads < 1 || n_threads > kMaxThreads) {
        return Error{Errc::invalid_argument, cat("thread count ", n_threads, " is not in 1 to ", kMaxThreads)};
    }
    if (!cpus.empty() && cpus.size() < n_threads) {
        return Error{Errc::invalid_argument,
                     cat(cpus.size(), " CPUs given for ", n_threads, " threads; give one each")};
    }
    std::unique_ptr<ThreadPool> pool(new ThreadPool);
    std::vector<std::vector<int>> sets;
    for (const int cpu : cpus) sets.push_back({cpu});
    if (Status s = pool->start(n_threads, sets, /*must=*/true); !s) return std::move(s).error();
    return pool;
}

Result<std::unique_ptr<ThreadPool>> ThreadPool::create(std::uint32_t n_threads, const ThreadPlaces& places) {
    if (places.queue.size() < n_threads) return create(n_threads);
    std::unique_ptr<ThreadPool> pool(new ThreadPool);
    pool->impl_->queues = std::vector<Impl::Queue>(std::max<std::size_t>(1, places.nodes.size()));
    pool->impl_->home = places.queue;
    pool->impl_->by_node = true;
    if (Status s = pool->start(n_threads, places.cpus, /*must=*/false); !s) return std::move(s).error();
    return pool;
}

Status ThreadPool::start(std::uint32_t n_threads, const std::vector<std::vector<int>>& cpus, bool must) {
    Impl& impl = *impl_;
    impl.n_threads = n_threads;
    if (!impl.by_node) {
        const std::uint32_t n = std::min(n_threads, kMostQueues);
        impl.queues = std::vector<Impl::Queue>(n);
        for (std::uint32_t i = 0; i < n_threads; ++i) impl.home.push_back(even_part(i, n, n_threads));
    }
    if (const std::uint32_t n = allowed_cpus(); n != 0 && n_threads > n) impl.spin = kSpinOversubscribed;
    impl.threads.reserve(n_threads - 1);
    const SignalsBlocked blocked;
    for (std::uint32_t i = 1; i < n_threads; ++i) {
        try {
            impl.threads.emplace_back([&impl, i] { impl.worker(i); });
        } catch (const std::system_error& e) {
            return Error{Errc::io, cat("cannot start thread ", i + 1, " of ", n_threads, ": ", e.code().message(),
                                       "; use fewer threads or raise the limit (ulimit -u, pids.max)")};
        }
#ifdef __linux__
        ::pthread_setname_np(impl.threads.back().native_handle(), cat("quern-", i).c_str());
#endif
        if (cpus.empty() || cpus[i].empty()) continue;
        if (Status s = pin(impl.threads.back(), cpus[i]); !s && must) return s;
    }
    return {};
}

std::uint32_t ThreadPool::size() const { return impl_->n_threads; }
std::uint32_t ThreadPool::n_queues() const { return static_cast<std::uint32_t>(impl_->queues.size()); }

void ThreadPool::run(const Job& job, std::uint32_t n_threads) {
    Impl& impl = *impl_;
    assert(n_threads >= 1 && n_threads <= impl.n_threads);
    if (n_threads == 1) {
        for (std::uint32_t step = 0, n; (n = job.units(job.context, step)) != Job::kEnd; ++step)
            for (std::uint32_t unit = 0; unit < n; ++unit) job.unit(job.context, step, unit, 0);
        return;
    }
    if (impl.limit.exchange(n_threads, std::memory_order_acq_rel) != n_threads) impl.limit_signal.advance();
    impl.finished.store(false, std::memory_order_relaxed);
    impl.job = job;
    impl.open_step(0);
    while (!impl.finished.load(std::memory_order_acquire)) {
        const std::uint32_t seen = impl.step_signal.value.load(std::memory_order_acquire);
        while (impl.work_one(0)) {}
        if (!impl.finished.load(std::memory_order_acquire)) impl.step_signal.wait(seen, impl.spin);
    }
}

}  // namespace quern::engine
