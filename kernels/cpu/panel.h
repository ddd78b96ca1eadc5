// SPDX-License-Identifier: Apache-2.0
// Where things lie in a packed panel of 16 rows: read by pack.cpp and by decode/*.inl, the same for every ISA.
//
// A 32-block's codes are made of planes of 64 bytes, byte 4 r + i belonging to row r, i < 4:
//   nibbles  4 x 64 B  vector g, low nibble: value 4 g + i; high nibble: value 16 + 4 g + i
//   bit       64 B     bit g: one bit of value 4 g + i, g < 8
//   crumbs   2 x 64 B  vector v, bits 2 j and 2 j + 1: two bits of value 16 v + 4 j + i, j < 4
//   bytes    8 x 64 B  vector g: value 4 g + i
// Rows of scales are 16 x F16 or 16 bytes, lane = row.
#pragma once

#include <cstddef>
#include <cstdint>

namespace quern::kernels::panel {

/// Types with 32-value blocks. Two blocks share a unit, so that planes stay on cache lines:
/// d of both | m of both, if the type has minima | codes of the first | codes of the second.
/// An odd last block leaves out the codes of the second.
template <bool kHasMin, std::size_t kCodeBytes>
struct Pair {
    static constexpr std::size_t kBlock = kCodeBytes;
    static constexpr std::size_t kHead = kHasMin ? 128 : 64;
    static constexpr std::size_t kUnit = kHead + 2 * kCodeBytes;
    static constexpr std::size_t kPerBlock = kUnit / 2;
    static constexpr std::size_t d(std::size_t b) { return b / 2 * kUnit + b % 2 * 32; }
    static constexpr std::size_t m(std::size_t b) { return d(b) + 64; }
    static constexpr std::size_t codes(std::size_t b) { return b / 2 * kUnit + kHead + b % 2 * kCodeBytes; }
    static constexpr std::size_t bytes(std::size_t n_blocks) { return codes(n_blocks) - (n_blocks % 2 ? 0 : kHead); }
};
using Q4_0 = Pair<false, 256>;  // nibbles
using Q4_1 = Pair<true, 256>;
using Q5_0 = Pair<false, 320>;  // nibbles, bit
using Q5_1 = Pair<true, 320>;
using Q8_0 = Pair<false, 512>;  // bytes

/// MXFP4: scale bytes of four 32-blocks share a cache line, followed by the codes of those that are there.
struct MXFP4 {
    static constexpr std::size_t kBlock = 256;  // nibbles
    static constexpr std::size_t kUnit = 64 + 4 * kBlock;
    static constexpr std::size_t kPerBlock = kUnit / 4;
    static constexpr std::size_t scale(std::size_t b) { return b / 4 * kUnit + b % 4 * 16; }
    static constexpr std::size_t codes(std::size_t b) { return b / 4 * kUnit + 64 + b % 4 * kBlock; }
    static constexpr std::size_t bytes(std::size_t n_blocks) { return codes(n_blocks) - (n_blocks % 4 ? 0 : 64); }
};

/// K types: d | dmin, if any | scales | minima | codes of the eight 32-blocks. Offsets inside one 256-value unit.
template <std::size_t kScaleAt, std::size_t kMinAt, std::size_t kCodesAt, std::size_t kCodeBytes>
struct Super {
    static constexpr std::size_t kBlock = kCodeBytes;
    static constexpr std::size_t kUnit = kCodesAt + 8 * kCodeBytes;
    static constexpr std::size_t kPerBlock = kUnit / 8;
    static constexpr std::size_t unit(std::size_t b) { return b / 8 * kUnit; }
    static constexpr std::size_t d(std::size_t b) { return unit(b); }
    static constexpr std::size_t dmin(std::size_t b) { return unit(b) + 32; }
    /// Scale and minimum rows of 32-block b (types with 16-value groups: 2 b + half, which is h here).
    static constexpr std::size_t scale32(std::size_t b) { return unit(b) + kScaleAt + b % 8 * 16; }
    static constexpr std::size_t min32(std::size_t b) { return unit(b) + kMinAt + b % 8 * 16; }
    static constexpr std::size_t scale16(std::size_t b, std::size_t h) {
        return unit(b) + kScaleAt + (b % 8 * 2 + h) * 16;
    }
    static constexpr std::size_t codes(std::size_t b) { return unit(b) + kCodesAt + b % 8 * kCodeBytes; }
    static constexpr std::size_t bytes(std::size_t n_blocks) { return (unit(n_blocks) + 63) / 64 * 64; }
};
using Q2_K = Super<64, 64, 320, 128>;   // scale | min << 4; crumbs
using Q3_K = Super<32, 0, 288, 192>;    // signed scales; crumbs, bit
using Q4_K = Super<64, 192, 320, 256>;  // nibbles
using Q5_K = Super<64, 192, 320, 320>;  // nibbles, bit
using Q6_K = Super<32, 0, 320, 384>;    // signed scales; nibbles, crumbs

}  // namespace quern::kernels::panel
