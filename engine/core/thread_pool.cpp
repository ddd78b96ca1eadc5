// SPDX-License-Identifier: Apache-2.0
#include "engine/core/thread_pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

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

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("isb");  // "yield" is a no-op on most cores
#endif
}

/// A number that threads wait on until it differs from what they saw.
struct alignas(kLine) Signal {
    std::atomic<std::uint32_t> value{0};
    std::atomic<std::uint32_t> sleepers{0};

    /// Publishes v: all that the caller wrote before is visible to whoever sees v.
    void set(std::uint32_t v) {
        // Sequentially consistent, as in wait(): either we see the sleeper or it sees v.
        value.store(v, std::memory_order_seq_cst);
        wake();
    }

    void wake() {
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

struct alignas(kLine) Counter {
    std::atomic<std::uint32_t> value{0};
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

Status pin(std::thread& thread, int cpu) {
#ifdef __linux__
    if (cpu < 0 || cpu >= CPU_SETSIZE) {
        return Error{Errc::invalid_argument, cat("CPU ", cpu, " is not in 0 to ", CPU_SETSIZE - 1)};
    }
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(static_cast<std::size_t>(cpu), &set);
    if (const int code = ::pthread_setaffinity_np(thread.native_handle(), sizeof set, &set); code != 0) {
        return Error{Errc::io, cat("cannot pin a thread to CPU ", cpu, ": ", std::generic_category().message(code),
                                   "; choose CPUs from the process's affinity mask")};
    }
#else
    static_cast<void>(thread), static_cast<void>(cpu);
#endif
    return {};
}

}  // namespace

struct ThreadPool::Impl {
    std::uint32_t n_threads = 1;
    std::chrono::microseconds spin = kSpin;

    // The job; written by the caller before the workers' start signals.
    void (*fn)(void*, Worker) = nullptr;
    void* context = nullptr;
    std::uint32_t n_running = 0;
    bool stop = false;

    Signal finished;    // counts down the workers still running (the caller aside)
    Signal generation;  // of the barrier
    Counter arrived;
    Counter counters[2];
    std::vector<Signal> start;  // one for each worker; start[0] is not used
    std::vector<std::thread> threads;

    void work(std::uint32_t index) {
        for (std::uint32_t seen = 0;;) {
            seen = start[index].wait(seen, spin);
            if (stop) return;
            fn(context, Worker{index, n_running});
            if (finished.value.fetch_sub(1, std::memory_order_seq_cst) == 1) finished.wake();
        }
    }

    void signal_start(std::uint32_t index) { start[index].set(start[index].value.load(std::memory_order_relaxed) + 1); }
};

ThreadPool::ThreadPool() : impl_(std::make_unique<Impl>()) {}

ThreadPool::~ThreadPool() {
    impl_->stop = true;
    for (std::uint32_t i = 1; i <= impl_->threads.size(); ++i) impl_->signal_start(i);
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
    Impl& impl = *pool->impl_;
    impl.n_threads = n_threads;
    if (const std::uint32_t n = allowed_cpus(); n != 0 && n_threads > n) impl.spin = kSpinOversubscribed;
    impl.start = std::vector<Signal>(n_threads);
    impl.threads.reserve(n_threads - 1);
    const SignalsBlocked blocked;
    for (std::uint32_t i = 1; i < n_threads; ++i) {
        try {
            impl.threads.emplace_back([&impl, i] { impl.work(i); });
        } catch (const std::system_error& e) {
            return Error{Errc::io, cat("cannot start thread ", i + 1, " of ", n_threads, ": ", e.code().message(),
                                       "; use fewer threads or raise the limit (ulimit -u, pids.max)")};
        }
#ifdef __linux__
        ::pthread_setname_np(impl.threads.back().native_handle(), cat("quern-", i).c_str());
#endif
        if (cpus.empty()) continue;
        if (Status s = pin(impl.threads.back(), cpus[i]); !s) return std::move(s).error();
    }
    return pool;
}

std::uint32_t ThreadPool::size() const { return impl_->n_threads; }

void ThreadPool::run(void (*fn)(void* context, Worker worker), void* context, std::uint32_t n_threads) {
    Impl& impl = *impl_;
    assert(n_threads >= 1 && n_threads <= impl.n_threads);
    reset_counter(0);
    reset_counter(1);
    if (n_threads == 1) return fn(context, Worker{0, 1});
    impl.fn = fn;
    impl.context = context;
    impl.n_running = n_threads;
    impl.finished.value.store(n_threads - 1, std::memory_order_relaxed);
    for (std::uint32_t i = 1; i < n_threads; ++i) impl.signal_start(i);
    fn(context, Worker{0, n_threads});
    for (std::uint32_t left = impl.finished.value.load(std::memory_order_acquire); left != 0;) {
        left = impl.finished.wait(left, impl.spin);
    }
}

void ThreadPool::barrier(Worker worker) {
    if (worker.n_threads == 1) return;
    Impl& impl = *impl_;
    // Cannot move before this thread arrives, and its last move was seen by this thread: relaxed is enough.
    const std::uint32_t generation = impl.generation.value.load(std::memory_order_relaxed);
    if (impl.arrived.value.fetch_add(1, std::memory_order_acq_rel) + 1 == worker.n_threads) {
        impl.arrived.value.store(0, std::memory_order_relaxed);
        impl.generation.set(generation + 1);
    } else {
        impl.generation.wait(generation, impl.spin);
    }
}

std::uint32_t ThreadPool::next(std::uint32_t counter) {
    assert(counter < 2);
    return impl_->counters[counter].value.fetch_add(1, std::memory_order_relaxed);
}

void ThreadPool::reset_counter(std::uint32_t counter) {
    assert(counter < 2);
    impl_->counters[counter].value.store(0, std::memory_order_relaxed);
}

}  // namespace quern::engine
