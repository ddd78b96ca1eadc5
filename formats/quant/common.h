// SPDX-License-Identifier: Apache-2.0
// What the type files share: rounding, input cleaning, nibble access and the scale searches of the encoders.
//
// A type file defines `BlockX`, the bytes as they lie in a GGUF file, and `X`, a policy with
//   type, name, elements;  using Block;  decode(const Block&, float*);  encode(const float*, Block&).
// Decoders do each float operation in the order of ggml's dequantize_row_*, so results are equal bit for bit. Every
// product is exact (an F16 scale has 11 bits, codes and integer scales 13 more at most), so fused multiply-adds give
// the same. Encoders round in between: their bytes are the same on all machines with -ffp-contract=off.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "formats/dtype.h"

namespace quern::quant {

constexpr std::uint32_t kSuperBlock = 256;  // values in a block of the K types

/// Nearest integer, ties to even. |v| must be below 2^22: the low mantissa bits of v + 1.5 * 2^23 are the result.
inline int nearest(float v) {
    return static_cast<int>(std::bit_cast<std::uint32_t>(v + 12582912.0f) & 0x007fffffu) - 0x00400000;
}

/// Truncation of v into [lo, hi]; the comparison comes first because converting a float out of range is undefined.
inline int truncate(float v, int lo, int hi) {
    if (!(v > static_cast<float>(lo))) return lo;
    if (v >= static_cast<float>(hi)) return hi;
    return static_cast<int>(v);
}

inline int clamp(int v, int lo, int hi) { return v < lo ? lo : v > hi ? hi : v; }

/// Nearest code in [lo, hi]; the float is limited first so that nearest() stays in its domain.
inline int nearest_code(float v, int lo, int hi) {
    return clamp(nearest(std::fmin(std::fmax(v, -4096.0f), 4096.0f)), lo, hi);
}

/// Encoders see only finite values that an F16 scale can reach: NaN counts as 0, the rest is clamped to +-65504.
inline void clean(const float* in, float* out, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) {
        out[i] = std::isnan(in[i]) ? 0.0f : std::fmin(std::fmax(in[i], -65504.0f), 65504.0f);
    }
}

inline float inverse(float d) { return d != 0.0f ? 1.0f / d : 0.0f; }

/// The value of largest magnitude with its sign; the first one on a tie.
inline float signed_max(const float* x, std::size_t n) {
    float best = 0.0f;
    for (std::size_t i = 0; i < n; ++i) {
        if (std::fabs(x[i]) > std::fabs(best)) best = x[i];
    }
    return best;
}

struct MinMax {
    float lo, hi;
};
inline MinMax min_max(const float* x, std::size_t n) {
    MinMax r{x[0], x[0]};
    for (std::size_t i = 1; i < n; ++i) {
        r.lo = std::fmin(r.lo, x[i]);
        r.hi = std::fmax(r.hi, x[i]);
    }
    return r;
}

/// Code i (0..31) of a Q5_0 or Q5_1 block: nibbles in qs, fifth bits in qh.
inline int five_bit_code(const std::uint8_t* qs, const std::uint8_t* qh, int i) {
    return ((qs[i % 16] >> (i < 16 ? 0 : 4)) & 15) | (((qh[i / 8] >> (i % 8)) & 1) << 4);
}
/// The inverse; both arrays must be zero before the first call.
inline void set_five_bit_code(std::uint8_t* qs, std::uint8_t* qh, int i, int code) {
    qs[i % 16] = static_cast<std::uint8_t>(qs[i % 16] | ((code & 15) << (i < 16 ? 0 : 4)));
    qh[i / 8] = static_cast<std::uint8_t>(qh[i / 8] | ((code >> 4) << (i % 8)));
}

/// 6-bit scale and minimum number j (0..7) of the 12 packed bytes of Q4_K and Q5_K.
struct ScaleMin {
    std::uint8_t scale, min;
};
inline ScaleMin unpack_scale_min(const std::uint8_t* p, int j) {
    if (j < 4) return {static_cast<std::uint8_t>(p[j] & 63), static_cast<std::uint8_t>(p[j + 4] & 63)};
    return {static_cast<std::uint8_t>((p[j + 4] & 15) | ((p[j - 4] >> 6) << 4)),
            static_cast<std::uint8_t>((p[j + 4] >> 4) | ((p[j] >> 6) << 4))};
}
/// The inverse; `p` must be zero before the first call, and j must ascend.
inline void pack_scale_min(std::uint8_t* p, int j, ScaleMin v) {
    if (j < 4) {
        p[j] = v.scale;
        p[j + 4] = v.min;
        return;
    }
    p[j + 4] = static_cast<std::uint8_t>((v.scale & 15) | ((v.min & 15) << 4));
    p[j - 4] = static_cast<std::uint8_t>(p[j - 4] | ((v.scale >> 4) << 6));
    p[j] = static_cast<std::uint8_t>(p[j] | ((v.min >> 4) << 6));
}

// The searches try a fixed ladder of scales around the one that maps the extreme value to the extreme code, round,
// solve the least squares for the scale given those codes, and keep the best. Errors are weighted by x^2, so that
// large weights count more, as they do in a dot product; a block of zeros is weighted evenly by the guard.

/// Scale d such that d * q, q in [-half, half - 1], fits x best. Gives 0 for a block of zeros.
inline float search_symmetric(const float* x, int n, int half) {
    const float extreme = signed_max(x, static_cast<std::size_t>(n));
    if (std::fabs(extreme) < 1e-30f) return 0.0f;
    float best_scale = 0.0f, best_gain = -1.0f;
    for (int step = -9; step <= 9; ++step) {
        const float inv = -(static_cast<float>(half) + 0.1f * static_cast<float>(step)) / extreme;
        float xq = 0.0f, qq = 0.0f;
        for (int i = 0; i < n; ++i) {
            const float q = static_cast<float>(nearest_code(inv * x[i], -half, half - 1));
            const float w = x[i] * x[i];
            xq += w * x[i] * q;
            qq += w * q * q;
        }
        if (!(qq > 0.0f)) continue;
        const float gain = xq * (xq / qq);  // by how much these codes reduce the weighted squared error
        if (gain > best_gain) {
            best_gain = gain;
            best_scale = xq / qq;
        }
    }
    return best_scale;
}

/// Scale and minimum such that scale * q - min, q in [0, top], fits x best, with scale >= 0 and min >= 0.
struct Affine {
    float scale = 0.0f, min = 0.0f;
};
inline Affine search_affine(const float* x, int n, int top) {
    float lo = 0.0f, hi = x[0], energy = 0.0f;  // lo starts at 0: a positive minimum has no encoding
    for (int i = 0; i < n; ++i) {
        lo = std::fmin(lo, x[i]);
        hi = std::fmax(hi, x[i]);
        energy += x[i] * x[i];
    }
    if (!(hi - lo > 1e-30f)) return {0.0f, -lo};
    const float floor_weight = std::sqrt(energy / static_cast<float>(n));
    const auto error = [&](Affine a) {
        const float inv = inverse(a.scale);
        float sum = 0.0f;
        for (int i = 0; i < n; ++i) {
            const float q = static_cast<float>(nearest_code(inv * (x[i] + a.min), 0, top));
            const float e = a.scale * q - a.min - x[i];
            sum += (floor_weight + std::fabs(x[i])) * e * e;
        }
        return sum;
    };
    Affine best{(hi - lo) / static_cast<float>(top), -lo};
    float best_error = error(best);
    for (int step = -5; step <= 20; ++step) {
        const float inv = (static_cast<float>(top) + 0.1f * static_cast<float>(step)) / (hi - lo);
        float sw = 0.0f, sx = 0.0f, sq = 0.0f, sqq = 0.0f, sxq = 0.0f;
        for (int i = 0; i < n; ++i) {
            const float q = static_cast<float>(nearest_code(inv * (x[i] - lo), 0, top));
            const float w = floor_weight + std::fabs(x[i]);
            sw += w;
            sx += w * x[i];
            sq += w * q;
            sqq += w * q * q;
            sxq += w * x[i] * q;
        }
        const float det = sw * sqq - sq * sq;
        if (!(det > 0.0f)) continue;
        Affine a{(sw * sxq - sx * sq) / det, -(sqq * sx - sq * sxq) / det};
        if (a.min < 0.0f) a = {sxq / sqq, 0.0f};
        if (!(a.scale > 0.0f)) continue;
        const float e = error(a);
        if (e < best_error) {
            best_error = e;
            best = a;
        }
    }
    return best;
}

/// Group scales and minimums as integer codes of two shared F16 factors.
struct AffineScales {
    std::uint16_t d = 0, dmin = 0;  // F16
    ScaleMin code[16] = {};
    float inv[16] = {}, min[16] = {};  // of the groups as a decoder will see them

    /// Best code in [0, top] for value x of group g.
    int value_code(int g, float x, int top) const { return nearest_code(inv[g] * (x + min[g]), 0, top); }
};
inline AffineScales share_scales(const Affine* fit, int groups, int top) {
    float scale = 0.0f, min = 0.0f;
    for (int g = 0; g < groups; ++g) {
        scale = std::fmax(scale, fit[g].scale);
        min = std::fmax(min, fit[g].min);
    }
    AffineScales s;
    s.d = f32_to_f16(scale / static_cast<float>(top));
    s.dmin = f32_to_f16(min / static_cast<float>(top));
    const float d = f16_to_f32(s.d), dmin = f16_to_f32(s.dmin);
    for (int g = 0; g < groups; ++g) {
        s.code[g].scale = static_cast<std::uint8_t>(nearest_code(inverse(d) * fit[g].scale, 0, top));
        s.code[g].min = static_cast<std::uint8_t>(nearest_code(inverse(dmin) * fit[g].min, 0, top));
        s.inv[g] = inverse(d * static_cast<float>(s.code[g].scale));
        s.min[g] = dmin * static_cast<float>(s.code[g].min);
    }
    return s;
}

/// The header of a block of eight groups of 32 with codes in [0, top]; `packed` holds zeros and gets the 6-bit codes.
inline AffineScales fit_groups_of_32(const float* x, int top, std::uint8_t* packed) {
    Affine fit[8];
    for (int g = 0; g < 8; ++g) fit[g] = search_affine(x + 32 * g, 32, top);
    const AffineScales s = share_scales(fit, 8, 63);
    for (int g = 0; g < 8; ++g) pack_scale_min(packed, g, s.code[g]);
    return s;
}

}  // namespace quern::quant
