// SPDX-License-Identifier: Apache-2.0
// GGUF blocks of 16 rows to one interleaved panel, in words: four values of a row move at once.
#include <algorithm>
#include <cstring>

#include "formats/dtype.h"
#include "kernels/cpu/panel.h"
#include "kernels/table.h"

namespace quern::kernels {
namespace {

using Byte = std::byte;

std::uint32_t word(const Byte* p) {
    std::uint32_t w;
    std::memcpy(&w, p, 4);
    return w;
}
std::uint32_t byte(const Byte* p) { return static_cast<std::uint32_t>(*p); }
void put16(Byte* p, const Byte* from) { std::memcpy(p, from, 2); }
void put8(Byte* p, std::uint32_t v) { *p = static_cast<Byte>(v); }
/// Word of row r in plane vector v.
void put(Byte* codes, std::uint32_t v, std::uint32_t r, std::uint32_t w) { std::memcpy(codes + 64 * v + 4 * r, &w, 4); }

// 32 byte codes of a row, given as 4 times 8: two words of four values move at once.

std::uint32_t low(std::uint64_t w) { return static_cast<std::uint32_t>(w); }
std::uint32_t high(std::uint64_t w) { return static_cast<std::uint32_t>(w >> 32); }

void put_nibbles(Byte* codes, std::uint32_t r, const std::uint64_t* w) {
    for (std::uint32_t g = 0; g < 2; ++g) {
        const std::uint64_t both = w[g] | (w[g + 2] << 4);
        put(codes, 2 * g, r, low(both));
        put(codes, 2 * g + 1, r, high(both));
    }
}
void put_bits(Byte* plane, std::uint32_t r, const std::uint64_t* w) {
    const std::uint64_t all = w[0] | (w[1] << 2) | (w[2] << 4) | (w[3] << 6);
    put(plane, 0, r, low(all) | (high(all) << 1));
}
void put_crumbs(Byte* plane, std::uint32_t r, const std::uint64_t* w) {
    for (std::uint32_t v = 0; v < 2; ++v) {
        const std::uint64_t all = w[2 * v] | (w[2 * v + 1] << 4);
        put(plane, v, r, low(all) | (high(all) << 2));
    }
}
/// w = (32 bytes at p) >> shift, masked bytewise.
void split(const Byte* p, std::uint32_t shift, std::uint64_t mask, std::uint64_t* w) {
    for (std::uint32_t g = 0; g < 4; ++g) {
        std::memcpy(&w[g], p + 8 * g, 8);
        w[g] = (w[g] >> shift) & mask;
    }
}
constexpr std::uint64_t kBit = 0x0101010101010101u, kCrumb = 0x0303030303030303u, kNibble = 0x0f0f0f0f0f0f0f0fu;

/// Fifth bits: bit k belongs to value k; the plane wants bit g of byte i = value 4 g + i.
std::uint32_t spread_fifth(std::uint32_t qh) {
    std::uint32_t out = 0;
    for (std::uint32_t i = 0; i < 4; ++i) {
        std::uint32_t t = (qh >> i) & 0x11111111u;
        t = (t | (t >> 3)) & 0x03030303u;
        t = (t | (t >> 6)) & 0x000f000fu;
        out |= ((t | (t >> 12)) & 0xffu) << (8 * i);
    }
    return out;
}

// One function a type: row r of the panel, of which values [k0, k1) from the blocks at `row`, its start.

template <class L, std::size_t kBytes, bool kMin, bool kFifth>
void pack_small(const Byte* row, std::uint32_t k0, std::uint32_t k1, std::uint32_t r, Byte* panel) {
    for (std::uint32_t b = k0 / 32; b < k1 / 32; ++b) {
        const Byte* p = row + b * kBytes;
        put16(panel + L::d(b) + 2 * r, p);
        if (kMin) put16(panel + L::m(b) + 2 * r, p + 2);
        const Byte* q = p + (kMin ? 4 : 2);
        Byte* codes = panel + L::codes(b);
        if (kFifth) {
            put(codes + 256, 0, r, spread_fifth(word(q)));
            q += 4;
        }
        for (std::uint32_t g = 0; g < L::kBlock / 64 - (kFifth ? 1 : 0); ++g) put(codes, g, r, word(q + 4 * g));
    }
}

void pack_mxfp4(const Byte* row, std::uint32_t k0, std::uint32_t k1, std::uint32_t r, Byte* panel) {
    using L = panel::MXFP4;
    for (std::uint32_t b = k0 / 32; b < k1 / 32; ++b) {
        const Byte* p = row + b * std::size_t{17};
        put8(panel + L::scale(b) + r, byte(p));
        for (std::uint32_t g = 0; g < 4; ++g) put(panel + L::codes(b), g, r, word(p + 1 + 4 * g));
    }
}

void pack_q2_k(const Byte* row, std::uint32_t k0, std::uint32_t k1, std::uint32_t r, Byte* panel) {
    using L = panel::Q2_K;
    std::uint64_t w[4];
    for (std::uint32_t b = k0 / 32; b < k1 / 32; ++b) {
        const Byte* p = row + b / 8 * 84;
        if (b % 8 == 0) {
            put16(panel + L::d(b) + 2 * r, p + 80);
            put16(panel + L::dmin(b) + 2 * r, p + 82);
        }
        for (std::uint32_t h = 0; h < 2; ++h) put8(panel + L::scale16(b, h) + r, byte(p + b % 8 * 2 + h));
        split(p + 16 + b % 8 / 4 * 32, 2 * (b % 4), kCrumb, w);
        put_crumbs(panel + L::codes(b), r, w);
    }
}

void pack_q3_k(const Byte* row, std::uint32_t k0, std::uint32_t k1, std::uint32_t r, Byte* panel) {
    using L = panel::Q3_K;
    std::uint64_t w[4];
    for (std::uint32_t b = k0 / 32; b < k1 / 32; ++b) {
        const Byte* p = row + b / 8 * 110;
        const Byte* scales = p + 96;
        if (b % 8 == 0) put16(panel + L::d(b) + 2 * r, p + 108);
        for (std::uint32_t h = 0; h < 2; ++h) {
            const std::uint32_t g = b % 8 * 2 + h;
            const std::uint32_t low = (byte(scales + g % 8) >> (g < 8 ? 0 : 4)) & 15;
            const std::uint32_t high = (byte(scales + 8 + g % 4) >> (2 * (g / 4))) & 3;
            put8(panel + L::scale16(b, h) + r, (low | (high << 4)) - 32);
        }
        Byte* codes = panel + L::codes(b);
        split(p + 32 + b % 8 / 4 * 32, 2 * (b % 4), kCrumb, w);
        put_crumbs(codes, r, w);
        split(p, b % 8, kBit, w);
        put_bits(codes + 128, r, w);
    }
}

/// Q4_K and Q5_K.
template <class L, std::size_t kBytes, bool kFifth>
void pack_q45_k(const Byte* row, std::uint32_t k0, std::uint32_t k1, std::uint32_t r, Byte* panel) {
    std::uint64_t w[4];
    for (std::uint32_t b = k0 / 32; b < k1 / 32; ++b) {
        const Byte* p = row + b / 8 * kBytes;
        const Byte* s = p + 4;
        const std::uint32_t j = b % 8;
        if (j == 0) {
            put16(panel + L::d(b) + 2 * r, p);
            put16(panel + L::dmin(b) + 2 * r, p + 2);
        }
        std::uint32_t scale, min;
        if (j < 4) {
            scale = byte(s + j) & 63;
            min = byte(s + j + 4) & 63;
        } else {
            scale = (byte(s + j + 4) & 15) | (byte(s + j - 4) >> 6 << 4);
            min = (byte(s + j + 4) >> 4) | (byte(s + j) >> 6 << 4);
        }
        put8(panel + L::scale32(b) + r, scale);
        put8(panel + L::min32(b) + r, min);
        Byte* codes = panel + L::codes(b);
        const Byte* q = p + 16;
        if (kFifth) {
            split(q, j, kBit, w);
            put_bits(codes + 256, r, w);
            q += 32;
        }
        split(q + j / 2 * 32, 4 * (j % 2), kNibble, w);
        put_nibbles(codes, r, w);
    }
}

void pack_q6_k(const Byte* row, std::uint32_t k0, std::uint32_t k1, std::uint32_t r, Byte* panel) {
    using L = panel::Q6_K;
    std::uint64_t w[4];
    for (std::uint32_t b = k0 / 32; b < k1 / 32; ++b) {
        const Byte* p = row + b / 8 * 210;
        const std::uint32_t half = b % 8 / 4, quarter = b % 4;
        if (b % 8 == 0) put16(panel + L::d(b) + 2 * r, p + 208);
        for (std::uint32_t h = 0; h < 2; ++h) put8(panel + L::scale16(b, h) + r, byte(p + 192 + b % 8 * 2 + h));
        Byte* codes = panel + L::codes(b);
        split(p + 64 * half + 32 * (quarter % 2), 4 * (quarter / 2), kNibble, w);
        put_nibbles(codes, r, w);
        split(p + 128 + 32 * half, 2 * quarter, kCrumb, w);
        put_crumbs(codes + 256, r, w);
    }
}

template <std::size_t kBytes>
void pack_floats(const Byte* row, std::uint32_t k0, std::uint32_t k1, std::uint32_t r, Byte* panel) {
    for (std::size_t k = k0; k < k1; ++k) std::memcpy(panel + (k * kLanes + r) * kBytes, row + k * kBytes, kBytes);
}

/// Values of a row before the next row's turn, so that the lines written by 16 rows are still in the L1 cache: 16 KiB of
/// F32. Whole rows of 8192 values of Q4_0 pack at a third of the speed.
constexpr std::uint32_t kStretch = 256;

struct Packer {
    void (*row)(const Byte* row, std::uint32_t k0, std::uint32_t k1, std::uint32_t r, Byte* panel);
    std::size_t (*bytes)(std::size_t n_k);
};

template <class L>
std::size_t block_bytes(std::size_t n_k) {
    return L::bytes(n_k / 32);
}
template <std::size_t kBytes>
std::size_t float_bytes(std::size_t n_k) {
    return (n_k * kLanes * kBytes + 63) / 64 * 64;
}

Packer packer(DType t) {
    switch (t) {
        case DType::F32: return {pack_floats<4>, float_bytes<4>};
        case DType::F16:
        case DType::BF16: return {pack_floats<2>, float_bytes<2>};
        case DType::Q4_0: return {pack_small<panel::Q4_0, 18, false, false>, block_bytes<panel::Q4_0>};
        case DType::Q4_1: return {pack_small<panel::Q4_1, 20, true, false>, block_bytes<panel::Q4_1>};
        case DType::Q5_0: return {pack_small<panel::Q5_0, 22, false, true>, block_bytes<panel::Q5_0>};
        case DType::Q5_1: return {pack_small<panel::Q5_1, 24, true, true>, block_bytes<panel::Q5_1>};
        case DType::Q8_0: return {pack_small<panel::Q8_0, 34, false, false>, block_bytes<panel::Q8_0>};
        case DType::Q2_K: return {pack_q2_k, block_bytes<panel::Q2_K>};
        case DType::Q3_K: return {pack_q3_k, block_bytes<panel::Q3_K>};
        case DType::Q4_K: return {pack_q45_k<panel::Q4_K, 144, false>, block_bytes<panel::Q4_K>};
        case DType::Q5_K: return {pack_q45_k<panel::Q5_K, 176, true>, block_bytes<panel::Q5_K>};
        case DType::Q6_K: return {pack_q6_k, block_bytes<panel::Q6_K>};
        case DType::MXFP4: return {pack_mxfp4, block_bytes<panel::MXFP4>};
    }
    return {};
}

}  // namespace

std::uint32_t type_index(DType t) {
    std::uint32_t i = 0;
    for (const QuantInfo& q : all_types()) {
        if (q.type == t) break;
        ++i;
    }
    return i;
}

std::size_t panel_bytes(DType t, std::uint32_t n_k) { return packer(t).bytes(n_k); }

void pack_panel(DType t, const std::byte* rows, std::size_t row_stride, std::uint32_t n_rows, std::uint32_t n_k,
                std::byte* panel) {
    const Packer p = packer(t);
    // Pads and missing rows are zero: a scale of 0 keeps whatever they yield finite.
    std::memset(panel, 0, p.bytes(n_k));
    for (std::uint32_t k = 0; k < n_k; k += kStretch)
        for (std::uint32_t r = 0; r < n_rows; ++r) p.row(rows + r * row_stride, k, std::min(k + kStretch, n_k), r, panel);
}

}  // namespace quern::kernels
