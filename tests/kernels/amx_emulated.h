// SPDX-License-Identifier: Apache-2.0
// The instructions that kernels/cpu/micro/amx_tiles.h names, in C++. Included there, inside the unit's namespace.
#pragma once

struct Tiles8 {
    TileConfig config{32};
    std::uint8_t bytes[8][16][64];
};
static thread_local Tiles8 emulated;

QUERN_INLINE void tile_load(int t, const void* p, std::size_t stride) {
    for (int r = 0; r < emulated.config.rows[t]; ++r)
        __builtin_memcpy(emulated.bytes[t][r], static_cast<const char*>(p) + static_cast<std::size_t>(r) * stride,
                         emulated.config.row_bytes[t]);
}
QUERN_INLINE void tile_zero(int t) { __builtin_memset(emulated.bytes[t], 0, sizeof emulated.bytes[t]); }
QUERN_INLINE void tile_store(int t, void* p, std::size_t stride) {
    for (int r = 0; r < emulated.config.rows[t]; ++r)
        __builtin_memcpy(static_cast<char*>(p) + static_cast<std::size_t>(r) * stride, emulated.bytes[t][r],
                         emulated.config.row_bytes[t]);
}
template <class B>
static void tile_dot(int c, int a, int b) {
    for (int m = 0; m < emulated.config.rows[c]; ++m)
        for (int n = 0; n < emulated.config.row_bytes[c] / 4; ++n) {
            std::int32_t sum;
            __builtin_memcpy(&sum, &emulated.bytes[c][m][4 * n], 4);
            for (int k = 0; k < emulated.config.row_bytes[a]; ++k)
                sum += static_cast<std::int8_t>(emulated.bytes[a][m][k]) *
                       static_cast<B>(emulated.bytes[b][k / 4][4 * n + k % 4]);
            __builtin_memcpy(&emulated.bytes[c][m][4 * n], &sum, 4);
        }
}
#define QUERN_TILE_CONFIG(p) emulated.config = *(p)
#define QUERN_TILE_RELEASE() static_cast<void>(0)
#define QUERN_TILE_LOAD(t, p, stride) tile_load(t, p, stride)
#define QUERN_TILE_ZERO(t) tile_zero(t)
#define QUERN_TILE_STORE(t, p, stride) tile_store(t, p, stride)
#define QUERN_TILE_DOT_SS(c, a, b) tile_dot<std::int8_t>(c, a, b)
#define QUERN_TILE_DOT_SU(c, a, b) tile_dot<std::uint8_t>(c, a, b)
