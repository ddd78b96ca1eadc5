// SPDX-License-Identifier: Apache-2.0
#if defined(__aarch64__)
#include <arm_neon.h>

#include "bench/roofline/kernels.h"
#include "kernels/table.h"

namespace quern::bench {
namespace {

using namespace quern::kernels;

// Latency 4 at up to 4 a cycle on today's widest cores.
constexpr int kChains = 16;

#define QUERN_HIDE(v) __asm__("" : "+w"(v))

#if defined(__clang__)
#define QUERN_DOTPROD __attribute__((target("dotprod")))
#define QUERN_I8MM __attribute__((target("i8mm")))
#else
#define QUERN_DOTPROD __attribute__((target("arch=armv8.2-a+dotprod")))
#define QUERN_I8MM __attribute__((target("arch=armv8.2-a+i8mm")))
#endif

std::uint64_t sum(const int32x4_t* v) {
    std::uint64_t total = 0;
    for (int i = 0; i < kChains; ++i) total += static_cast<std::uint64_t>(vaddlvq_s32(v[i]));
    return total;
}

QUERN_DOTPROD std::uint64_t int8_dot(std::uint64_t n) {
    int32x4_t acc[kChains] = {};
    int8x16_t a = vdupq_n_s8(1), b = a;
    QUERN_HIDE(a);
    QUERN_HIDE(b);
    for (auto& v : acc) QUERN_HIDE(v);  // chains that start alike would be made one
    for (std::uint64_t i = 0; i < n; ++i) {
#pragma GCC unroll 16
        for (int c = 0; c < kChains; ++c) acc[c] = vdotq_s32(acc[c], a, b);
    }
    return sum(acc);
}

QUERN_I8MM std::uint64_t int8_mmla(std::uint64_t n) {
    int32x4_t acc[kChains] = {};
    int8x16_t a = vdupq_n_s8(1), b = a;
    QUERN_HIDE(a);
    QUERN_HIDE(b);
    for (auto& v : acc) QUERN_HIDE(v);  // chains that start alike would be made one
    for (std::uint64_t i = 0; i < n; ++i) {
#pragma GCC unroll 16
        for (int c = 0; c < kChains; ++c) acc[c] = vmmlaq_s32(acc[c], a, b);
    }
    return sum(acc);
}

std::uint64_t f32_fma(std::uint64_t n) {
    float32x4_t acc[kChains] = {};
    float32x4_t a = vdupq_n_f32(1), b = a;
    QUERN_HIDE(a);
    QUERN_HIDE(b);
    for (auto& v : acc) QUERN_HIDE(v);  // chains that start alike would be made one
    for (std::uint64_t i = 0; i < n; ++i) {
#pragma GCC unroll 16
        for (int c = 0; c < kChains; ++c) acc[c] = vfmaq_f32(acc[c], a, b);
    }
    int32x4_t whole[kChains];
    for (int c = 0; c < kChains; ++c) whole[c] = vcvtq_s32_f32(acc[c]);
    return sum(whole);
}

constexpr PeakKernel kPeaks[] = {
    {"NEON i8mm", Arithmetic::int8, kNeon | kI8mm, int8_mmla},
    {"NEON dotprod", Arithmetic::int8, kNeon | kDotprod, int8_dot},
    {"NEON FMA", Arithmetic::f32, kNeon, f32_fma},
};

std::uint64_t read_neon(const std::byte* p, std::size_t gap, std::size_t stride, std::size_t n, std::size_t ahead) {
    uint64x2_t acc[4] = {};
    for (std::size_t i = 0; i < n; ++i, p += stride) {
#pragma GCC unroll 4
        for (std::size_t j = 0; j < 4; ++j) {
            if (ahead) __builtin_prefetch(p + j * gap + ahead);
            const auto* line = reinterpret_cast<const std::uint64_t*>(p + j * gap);
            for (int k = 0; k < 4; ++k) acc[k] = vaddq_u64(acc[k], vld1q_u64(line + 2 * k));
        }
    }
    return vaddvq_u64(vaddq_u64(vaddq_u64(acc[0], acc[1]), vaddq_u64(acc[2], acc[3])));
}

}  // namespace

std::span<const PeakKernel> peak_kernels() { return kPeaks; }

ReadKernel read_kernel(std::uint32_t) { return read_neon; }

}  // namespace quern::bench
#endif
