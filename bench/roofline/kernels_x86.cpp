// SPDX-License-Identifier: Apache-2.0
#if defined(__x86_64__)
#include <immintrin.h>

#include "bench/roofline/kernels.h"
#include "kernels/table.h"

namespace quern::bench {
namespace {

using namespace quern::kernels;

// Latency times throughput of the multiply-add is at most 10 on any core so far (5 cycles, 2 a cycle); 16 registers
// allow 12.
constexpr int kChains = 12;

// Makes a value unknown to the compiler: ones could be multiplied at compile time, equal products be shared, and chains
// that start alike be made one, which then seems twelve times as fast.
#define QUERN_HIDE(v) __asm__("" : "+x"(v))
#define QUERN_HIDE512(v) __asm__("" : "+v"(v))

__attribute__((target("avx2"))) std::uint64_t sum(const __m256i* v, int n) {
    alignas(32) std::int32_t lanes[8];
    std::uint64_t total = 0;
    for (int i = 0; i < n; ++i) {
        _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), v[i]);
        for (const std::int32_t x : lanes) total += static_cast<std::uint32_t>(x);
    }
    return total;
}

__attribute__((target("avx512f"))) std::uint64_t sum(const __m512i* v, int n) {
    alignas(64) std::int32_t lanes[16];
    std::uint64_t total = 0;
    for (int i = 0; i < n; ++i) {
        _mm512_store_si512(lanes, v[i]);
        for (const std::int32_t x : lanes) total += static_cast<std::uint32_t>(x);
    }
    return total;
}

__attribute__((target("avx512f"))) std::uint64_t sum(const __m512* v, int n) {
    alignas(64) float lanes[16];
    std::uint64_t total = 0;
    for (int i = 0; i < n; ++i) {
        _mm512_store_ps(lanes, v[i]);
        for (const float x : lanes) total += static_cast<std::uint64_t>(x);
    }
    return total;
}

__attribute__((target("avx512f,avx512vnni"))) std::uint64_t int8_vnni512(std::uint64_t n) {
    __m512i acc[kChains] = {}, a = _mm512_set1_epi8(1), b = a;
    QUERN_HIDE512(a);
    QUERN_HIDE512(b);
    for (auto& v : acc) QUERN_HIDE512(v);
    for (std::uint64_t i = 0; i < n; ++i) {
#pragma GCC unroll 12
        for (int c = 0; c < kChains; ++c) acc[c] = _mm512_dpbusd_epi32(acc[c], a, b);
    }
    return sum(acc, kChains);
}

__attribute__((target("avx2,avxvnni"))) std::uint64_t int8_vnni256(std::uint64_t n) {
    __m256i acc[kChains] = {}, a = _mm256_set1_epi8(1), b = a;
    QUERN_HIDE(a);
    QUERN_HIDE(b);
    for (auto& v : acc) QUERN_HIDE(v);
    for (std::uint64_t i = 0; i < n; ++i) {
#pragma GCC unroll 12
        for (int c = 0; c < kChains; ++c) acc[c] = _mm256_dpbusd_avx_epi32(acc[c], a, b);
    }
    return sum(acc, kChains);
}

__attribute__((target("avx2"))) std::uint64_t int8_maddubs(std::uint64_t n) {
    constexpr int kSumChains = 6;  // only the additions are chained; the products need the registers
    __m256i acc[kSumChains] = {}, a = _mm256_set1_epi8(1), b = a;
    const __m256i ones = _mm256_set1_epi16(1);
    QUERN_HIDE(b);
    for (std::uint64_t i = 0; i < n; ++i) {
#pragma GCC unroll 6
        for (int c = 0; c < kSumChains; ++c) {
            QUERN_HIDE(a);  // else all chains share one product
            acc[c] = _mm256_add_epi32(acc[c], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
        }
    }
    return sum(acc, kSumChains);
}

__attribute__((target("avx512f"))) std::uint64_t f32_fma512(std::uint64_t n) {
    __m512 acc[kChains] = {}, a = _mm512_set1_ps(1), b = a;
    QUERN_HIDE512(a);
    QUERN_HIDE512(b);
    for (auto& v : acc) QUERN_HIDE512(v);
    for (std::uint64_t i = 0; i < n; ++i) {
#pragma GCC unroll 12
        for (int c = 0; c < kChains; ++c) acc[c] = _mm512_fmadd_ps(a, b, acc[c]);
    }
    return sum(acc, kChains);
}

__attribute__((target("avx2,fma"))) std::uint64_t f32_fma256(std::uint64_t n) {
    __m256 acc[kChains] = {}, a = _mm256_set1_ps(1), b = a;
    QUERN_HIDE(a);
    QUERN_HIDE(b);
    for (auto& v : acc) QUERN_HIDE(v);
    for (std::uint64_t i = 0; i < n; ++i) {
#pragma GCC unroll 12
        for (int c = 0; c < kChains; ++c) acc[c] = _mm256_fmadd_ps(a, b, acc[c]);
    }
    __m256i whole[kChains];
    for (int c = 0; c < kChains; ++c) whole[c] = _mm256_cvtps_epi32(acc[c]);
    return sum(whole, kChains);
}

__attribute__((target("avx512f,avx512bf16"))) std::uint64_t bf16_dot512(std::uint64_t n) {
    __m512 acc[kChains] = {};
    __m512i a = _mm512_set1_epi16(0x3f80), b = a;  // 1.0
    QUERN_HIDE512(a);
    QUERN_HIDE512(b);
    for (auto& v : acc) QUERN_HIDE512(v);
    for (std::uint64_t i = 0; i < n; ++i) {
#pragma GCC unroll 12
        for (int c = 0; c < kChains; ++c) acc[c] = _mm512_dpbf16_ps(acc[c], (__m512bh)a, (__m512bh)b);
    }
    return sum(acc, kChains);
}

// --- AMX: six accumulator tiles hide the latency of 52 cycles at one multiplication every 16; two hold the ones. ---

struct alignas(64) TileConfig {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {};
    std::uint8_t rows[16] = {};
};
constexpr std::size_t kTileBytes = 1024;  // 16 rows of 64 bytes

__attribute__((target("amx-tile"))) void load_tiles(const void* ones) {
    TileConfig config;
    for (int t = 0; t < 8; ++t) {
        config.row_bytes[t] = 64;
        config.rows[t] = 16;
    }
    __asm__ volatile("" : : "r"(&config), "r"(ones) : "memory");  // GCC's intrinsics do not say all that they read
    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_loadd(6, ones, 64);
    _tile_loadd(7, ones, 64);
}

/// The six accumulators, and the tiles given back.
__attribute__((target("amx-tile"))) void store_tiles(std::byte* out) {
    _tile_stored(0, out, 64);
    _tile_stored(1, out + kTileBytes, 64);
    _tile_stored(2, out + 2 * kTileBytes, 64);
    _tile_stored(3, out + 3 * kTileBytes, 64);
    _tile_stored(4, out + 4 * kTileBytes, 64);
    _tile_stored(5, out + 5 * kTileBytes, 64);
    _tile_release();
}

template <class T>
std::uint64_t sum_tiles() {
    alignas(64) T lanes[6 * kTileBytes / sizeof(T)];
    store_tiles(reinterpret_cast<std::byte*>(lanes));
    std::uint64_t total = 0;
    for (const T x : lanes) total += static_cast<std::uint64_t>(x);
    return total;
}

// One multiplication adds 64 to an accumulator (32 in BF16): fewer of them keep accumulators exact.
constexpr std::uint64_t kInt8PerTile = 4, kBf16PerTile = 32;

__attribute__((target("amx-tile,amx-int8"))) std::uint64_t int8_amx(std::uint64_t n) {
    alignas(64) std::uint8_t ones[kTileBytes];
    for (std::uint8_t& x : ones) x = 1;
    load_tiles(ones);
    for (std::uint64_t i = 0; i < n; i += kInt8PerTile) {
        _tile_dpbssd(0, 6, 7);
        _tile_dpbssd(1, 6, 7);
        _tile_dpbssd(2, 6, 7);
        _tile_dpbssd(3, 6, 7);
        _tile_dpbssd(4, 6, 7);
        _tile_dpbssd(5, 6, 7);
    }
    return sum_tiles<std::int32_t>();
}

__attribute__((target("amx-tile,amx-bf16"))) std::uint64_t bf16_amx(std::uint64_t n) {
    alignas(64) std::uint16_t ones[kTileBytes / 2];
    for (std::uint16_t& x : ones) x = 0x3f80;
    load_tiles(ones);
    for (std::uint64_t i = 0; i < n; i += kBf16PerTile) {
        _tile_dpbf16ps(0, 6, 7);
        _tile_dpbf16ps(1, 6, 7);
        _tile_dpbf16ps(2, 6, 7);
        _tile_dpbf16ps(3, 6, 7);
        _tile_dpbf16ps(4, 6, 7);
        _tile_dpbf16ps(5, 6, 7);
    }
    return sum_tiles<float>();
}

constexpr PeakKernel kPeaks[] = {
    {"AMX int8", Arithmetic::int8, kAmxInt8, int8_amx},
    {"AVX-512 VNNI", Arithmetic::int8, kAvx512 | kAvx512Vnni, int8_vnni512},
    {"AVX-VNNI", Arithmetic::int8, kAvx2 | kAvxVnni, int8_vnni256},
    {"AVX2 maddubs", Arithmetic::int8, kAvx2, int8_maddubs},
    {"AMX BF16", Arithmetic::bf16, kAmxBf16, bf16_amx},
    {"AVX-512 BF16", Arithmetic::bf16, kAvx512 | kAvx512Bf16, bf16_dot512},
    {"AVX-512 FMA", Arithmetic::f32, kAvx512, f32_fma512},
    {"AVX2 FMA", Arithmetic::f32, kAvx2 | kFma, f32_fma256},
};

// --- Reading ---

#define QUERN_PREFETCH(p) _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0)

__attribute__((target("avx512f"))) std::uint64_t read512(const std::byte* p, std::size_t gap, std::size_t stride,
                                                         std::size_t n, std::size_t ahead) {
    __m512i acc[4] = {};
    for (std::size_t i = 0; i < n; ++i, p += stride) {
#pragma GCC unroll 4
        for (std::size_t j = 0; j < 4; ++j) {
            if (ahead) QUERN_PREFETCH(p + j * gap + ahead);
            acc[j] = _mm512_add_epi64(acc[j], _mm512_load_si512(p + j * gap));
        }
    }
    alignas(64) std::uint64_t lanes[8];
    _mm512_store_si512(lanes, _mm512_add_epi64(_mm512_add_epi64(acc[0], acc[1]), _mm512_add_epi64(acc[2], acc[3])));
    std::uint64_t total = 0;
    for (const std::uint64_t x : lanes) total += x;
    return total;
}

__attribute__((target("avx2"))) std::uint64_t read256(const std::byte* p, std::size_t gap, std::size_t stride,
                                                      std::size_t n, std::size_t ahead) {
    __m256i acc[8] = {};
    for (std::size_t i = 0; i < n; ++i, p += stride) {
#pragma GCC unroll 4
        for (std::size_t j = 0; j < 4; ++j) {
            if (ahead) QUERN_PREFETCH(p + j * gap + ahead);
            const auto* line = reinterpret_cast<const __m256i*>(p + j * gap);
            acc[2 * j] = _mm256_add_epi64(acc[2 * j], _mm256_load_si256(line));
            acc[2 * j + 1] = _mm256_add_epi64(acc[2 * j + 1], _mm256_load_si256(line + 1));
        }
    }
    for (int j = 1; j < 8; ++j) acc[0] = _mm256_add_epi64(acc[0], acc[j]);
    alignas(32) std::uint64_t lanes[4];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), acc[0]);
    return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}

std::uint64_t read128(const std::byte* p, std::size_t gap, std::size_t stride, std::size_t n, std::size_t ahead) {
    __m128i acc = _mm_setzero_si128();
    for (std::size_t i = 0; i < n; ++i, p += stride) {
        for (std::size_t j = 0; j < 4; ++j) {
            if (ahead) QUERN_PREFETCH(p + j * gap + ahead);
            const auto* line = reinterpret_cast<const __m128i*>(p + j * gap);
            for (int k = 0; k < 4; ++k) acc = _mm_add_epi64(acc, _mm_load_si128(line + k));
        }
    }
    alignas(16) std::uint64_t lanes[2];
    _mm_store_si128(reinterpret_cast<__m128i*>(lanes), acc);
    return lanes[0] + lanes[1];
}

}  // namespace

std::span<const PeakKernel> peak_kernels() { return kPeaks; }

ReadKernel read_kernel(std::uint32_t features) {
    return features & kAvx512 ? read512 : features & kAvx2 ? read256 : read128;
}

}  // namespace quern::bench
#endif
