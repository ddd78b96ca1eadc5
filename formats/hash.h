// SPDX-License-Identifier: Apache-2.0
// A fast hash of bytes, for finding damage and change; not against an adversary.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace quern {

/// Eight lanes of 64-bit words: xor, multiply by an odd number, fold the high half onto the low, each a bijection of the
/// lane, so that a change of one word always changes its lane. The eight chains of multiplications hide each other's latency,
/// so that memory is the slower part. The same number on every machine (little-endian, as all of Quern).
inline std::uint64_t hash_bytes(std::span<const std::byte> bytes, std::uint64_t seed = 0) {
    constexpr std::uint64_t kOdd = 0x9e3779b97f4a7c15u, kOdd2 = 0xd6e8feb86659fd93u;  // 2^64 / golden ratio; any odd number
    const auto mix = [](std::uint64_t h, std::uint64_t w) {
        const std::uint64_t x = (h ^ w) * kOdd;
        return x ^ x >> 32;
    };
    std::uint64_t lane[8];
    for (std::uint64_t i = 0; i < 8; ++i) lane[i] = (seed + i + 1) * kOdd2;
    const std::byte* p = bytes.data();
    std::size_t left = bytes.size();
    const auto block = [&](const std::byte* from) {
        std::uint64_t w[8];
        std::memcpy(w, from, 64);
        for (int i = 0; i < 8; ++i) lane[i] = mix(lane[i], w[i]);
    };
    for (; left >= 64; p += 64, left -= 64) block(p);
    if (left > 0) {
        std::byte tail[64] = {};
        std::memcpy(tail, p, left);
        block(tail);
    }
    std::uint64_t h = mix(seed ^ kOdd2, bytes.size());
    for (const std::uint64_t l : lane) h = mix(h ^ l >> 32, l);
    h ^= h >> 31;
    h *= kOdd2;
    return h ^ h >> 29;
}

}  // namespace quern
