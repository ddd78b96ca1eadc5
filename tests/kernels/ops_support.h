// SPDX-License-Identifier: Apache-2.0
// What the tests of element-wise kernels and attention share: the tables of this machine, a seed that can be repeated,
// buffers that end where memory ends.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/table.h"

namespace quern::kernels::test {

/// Every how many-th size tests take of the many that differ in a remainder alone.
#ifdef QUERN_TEST_SANITIZED
inline constexpr std::uint32_t kEvery = 3;
#else
inline constexpr std::uint32_t kEvery = 1;
#endif

/// Half the spacing of floats just above 1: the relative error of one rounding.
inline constexpr double kUlpHalf = 0x1p-24;

inline std::vector<const KernelTable*> runnable_tables() {
    std::vector<const KernelTable*> out;
    const std::uint32_t features = cpu_features();
    for (const KernelTable* t : compiled_tables())
        if ((t->needs & ~features) == 0) out.push_back(t);
#ifdef QUERN_TEST_SANITIZED
    if (out.size() > 2) out.erase(out.begin() + 1, out.end() - 1);   // the vector tables between are not instrumented: kernels/CMakeLists.txt
#endif
    return out;
}

inline const KernelTable& scalar_table() { return **select_table("scalar", 0); }

/// QUERN_TEST_SEED, or a fixed one; printed once so that a failure can be repeated.
inline std::uint32_t seed() {
    static const std::uint32_t value = [] {
        const char* text = std::getenv("QUERN_TEST_SEED");
        const auto s = text ? static_cast<std::uint32_t>(std::strtoul(text, nullptr, 10)) : 20240611u;
        std::printf("QUERN_TEST_SEED=%u\n", s);
        return s;
    }();
    return value;
}

/// n values of T whose last byte is the last byte of a readable page: one element more faults. The room before them is NaN in
/// any type, and stays it.
template <class T>
class Guarded {
public:
    explicit Guarded(std::size_t n) : n_(n) {
        const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
        const std::size_t body = (n * sizeof(T) + page - 1) / page * page;
        size_ = body + page;
        void* p = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) throw std::bad_alloc();
        base_ = static_cast<std::byte*>(p);
        if (mprotect(base_ + body, page, PROT_NONE) != 0) throw std::bad_alloc();
        data_ = reinterpret_cast<T*>(base_ + body - n * sizeof(T));
        std::memset(base_, 0xff, body - n * sizeof(T));
    }
    explicit Guarded(const std::vector<T>& from) : Guarded(from.size()) {
        if (!from.empty()) std::memcpy(data_, from.data(), n_ * sizeof(T));
    }
    ~Guarded() {
        const auto before = static_cast<std::size_t>(reinterpret_cast<std::byte*>(data_) - base_);
        const bool kept = before == 0 || (*base_ == std::byte{0xff} && std::memcmp(base_, base_ + 1, before - 1) == 0);
        EXPECT_TRUE(kept) << "wrote before the buffer";
        munmap(base_, size_);
    }
    Guarded(const Guarded&) = delete;
    Guarded& operator=(const Guarded&) = delete;
    T* data() const { return data_; }
    T& operator[](std::size_t i) const { return data_[i]; }
    std::size_t size() const { return n_; }

private:
    std::byte* base_ = nullptr;
    std::size_t n_, size_ = 0;
    T* data_ = nullptr;
};

inline double decode_f16(std::uint16_t h) {
    const int e = (h >> 10) & 31, m = h & 1023;
    const double v = e == 31 ? (m ? NAN : INFINITY) : e ? std::ldexp(1024 + m, e - 25) : std::ldexp(m, -24);
    return h & 0x8000 ? -v : v;
}

inline std::vector<float> random_floats(std::size_t n, float spread, std::mt19937& rng) {
    std::normal_distribution<float> dist(0.0f, spread);
    std::vector<float> v(n);
    for (float& x : v) x = dist(rng);
    return v;
}

/// The same value to the bit; any NaN equals any NaN, since its sign and payload are the machine's choice.
inline bool same_bits(float a, float b) {
    return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b) || (std::isnan(a) && std::isnan(b));
}

/// Index of the first element that differs, or n.
inline std::size_t first_difference(const float* a, const float* b, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i)
        if (!same_bits(a[i], b[i])) return i;
    return n;
}

/// A test over every table that this machine can run.
class EveryTable : public testing::TestWithParam<const KernelTable*> {
protected:
    const KernelTable& table() const { return *GetParam(); }
    bool is_scalar() const { return &table() == &scalar_table(); }

    /// What `make` gives, made by the test's run on the first table and kept for its runs on the others: all of them call in
    /// the same order and draw the same from one seed. `make` may draw from rng and use what was shared before, no more.
    template <class F>
    const auto& shared(F make) {
        using T = decltype(make());
        static std::string test;                       // one place in the source: a lambda is a type of its own
        static std::vector<std::unique_ptr<T>> kept;
        const auto* info = testing::UnitTest::GetInstance()->current_test_info();
        const std::string name(info->name(), std::strcspn(info->name(), "/"));
        if (test != info->test_suite_name() + name) kept.clear(), test = info->test_suite_name() + name;
        const std::size_t n = calls_[&kept]++;
        if (n == kept.size()) kept.push_back(std::unique_ptr<T>(new T(make())));
        return std::as_const(*kept[n]);
    }
    std::mt19937 rng{seed()};

private:
    std::map<const void*, std::size_t> calls_;
};

/// Names of tests have no dashes.
inline std::string table_name(const testing::TestParamInfo<const KernelTable*>& info) {
    std::string name = info.param->name;
    for (char& c : name)
        if (c == '-') c = '_';
    return name;
}

}  // namespace quern::kernels::test
