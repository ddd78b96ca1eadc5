// SPDX-License-Identifier: Apache-2.0
// Tiles of AMX (Intel SDM volume 1, chapter 18) for blocks of int8 dot products: 16 columns of activations times 16
// rows of weights. QUERN_AMX_TILES may name a file with the same instructions in C++: tests run the kernels so on
// machines without.
#pragma once

#include <cstddef>
#include <cstdint>

namespace quern::kernels::QUERN_ISA_NS {

/// Tiles 0, 1: sums [16 columns][16 rows] of int32. 2, 3: activations [16 columns][kBytes]. 4, 5: codes
/// [kBytes / 4][16 rows][4]. Memory in the layout LDTILECFG reads.
struct alignas(64) TileConfig {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {};
    std::uint8_t rows[16] = {};

    explicit TileConfig(int k_bytes) {
        for (int t = 0; t < 2; ++t) {
            rows[t] = rows[2 + t] = 16;
            rows[4 + t] = static_cast<std::uint8_t>(k_bytes / 4);
            row_bytes[t] = row_bytes[4 + t] = 64;
            row_bytes[2 + t] = static_cast<std::uint16_t>(k_bytes);
        }
    }
};

#ifdef QUERN_AMX_TILES
#include QUERN_AMX_TILES
#else

#define QUERN_TILE_CONFIG(p) _tile_loadconfig(p)
#define QUERN_TILE_RELEASE() _tile_release()
#define QUERN_TILE_LOAD(t, p, stride) _tile_loadd(t, p, stride)
#define QUERN_TILE_ZERO(t) _tile_zero(t)
#define QUERN_TILE_STORE(t, p, stride) _tile_stored(t, p, stride)
#define QUERN_TILE_DOT_SS(c, a, b) _tile_dpbssd(c, a, b)
#define QUERN_TILE_DOT_SU(c, a, b) _tile_dpbsud(c, a, b)

#endif

/// Tiles are configured while one lives. Their state costs a context switch 8 KiB, so it is given back.
class TilesInUse {
public:
    inline __attribute__((always_inline)) explicit TilesInUse(int k_bytes) {
        const TileConfig config(k_bytes);
        __asm__ volatile("" : : "r"(&config) : "memory");  // GCC's intrinsics do not say all that they read
        QUERN_TILE_CONFIG(&config);
    }
    inline __attribute__((always_inline)) ~TilesInUse() { QUERN_TILE_RELEASE(); }
    TilesInUse(const TilesInUse&) = delete;
    TilesInUse& operator=(const TilesInUse&) = delete;
};

/// out[16 columns][16 rows] = dot products of x (columns `stride` bytes apart) and the codes w. Which: 0 or 1, the
/// tiles.
template <bool kSigned, int kWhich>
QUERN_INLINE void tile_products(const std::byte* x, std::size_t stride, const std::byte* w, std::int32_t* out) {
    __asm__ volatile("" : : : "memory");
    if constexpr (kWhich == 0) {
        QUERN_TILE_LOAD(2, x, stride);
        QUERN_TILE_LOAD(4, w, 64);
        QUERN_TILE_ZERO(0);
        if constexpr (kSigned)
            QUERN_TILE_DOT_SS(0, 2, 4);
        else
            QUERN_TILE_DOT_SU(0, 2, 4);
        QUERN_TILE_STORE(0, out, 64);
    } else {
        QUERN_TILE_LOAD(3, x, stride);
        QUERN_TILE_LOAD(5, w, 64);
        QUERN_TILE_ZERO(1);
        if constexpr (kSigned)
            QUERN_TILE_DOT_SS(1, 3, 5);
        else
            QUERN_TILE_DOT_SU(1, 3, 5);
        QUERN_TILE_STORE(1, out, 64);
    }
    __asm__ volatile("" : : : "memory");
}

}  // namespace quern::kernels::QUERN_ISA_NS
