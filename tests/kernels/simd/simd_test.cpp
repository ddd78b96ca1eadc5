// SPDX-License-Identifier: Apache-2.0
// The vocabulary of one ISA (QUERN_TESTED_ISA) against simd/scalar.h, bit for bit.
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>

#include "formats/dtype.h"
#include "kernels/table.h"
#include "tests/kernels/simd/probe.h"

namespace quern::kernels {
namespace scalar {
int probe(const unsigned char* in, int n, Probe* out);
}
namespace QUERN_TESTED_ISA {
int probe(const unsigned char* in, int n, Probe* out);
}

namespace {

#define QUERN_TEXT(x) #x
#define QUERN_NAME(x) QUERN_TEXT(x)

struct alignas(64) Input {
    std::array<std::uint32_t, kProbeInput / 4> words{};
    const unsigned char* bytes() const { return reinterpret_cast<const unsigned char*>(words.data()); }
};

std::uint32_t word(const unsigned char* bytes, int lane) {
    std::uint32_t w;
    std::memcpy(&w, bytes + 4 * lane, sizeof w);
    return w;
}

bool is_nan(std::uint32_t bits) { return (bits & 0x7fffffffu) > 0x7f800000u; }

class Simd : public testing::Test {
protected:
    void SetUp() override {
        const auto table = select_table(QUERN_NAME(QUERN_TESTED_ISA), cpu_features());
        if (!table) GTEST_SKIP() << table.error().message;
    }

    /// Runs both on `in`; stops the test at the first difference.
    void compare(const Input& input, int n) {
        Input in = input;
        for (std::uint32_t& w : in.words) {  // dot product operands are in +-127
            if (&w < &in.words[64]) continue;
            for (int shift = 0; shift < 32; shift += 8)
                if ((w >> shift & 255u) == 128u) w ^= 1u << shift;
        }
        std::array<Probe, kMostProbes> want{}, got{};
        const int count = scalar::probe(in.bytes(), n, want.data());
        ASSERT_LE(count, kMostProbes);
        ASSERT_EQ(count, QUERN_TESTED_ISA::probe(in.bytes(), n, got.data()));
        for (int k = 0; k < count; ++k) {
            for (int lane = 0; lane < 16; ++lane) {
                const std::uint32_t w = word(want[k].bytes, lane), g = word(got[k].bytes, lane);
                if (want[k].floats && is_nan(w) && is_nan(g)) continue;
                ASSERT_EQ(w, g) << want[k].name << ", lane " << lane << ", n " << n << std::hex << ", 0x" << w
                                << " expected, 0x" << g << " found";
            }
        }
    }

    const int seed_ = testing::UnitTest::GetInstance()->random_seed();  // --gtest_random_seed
    std::mt19937 random_{static_cast<std::mt19937::result_type>(seed_)};
};

TEST_F(Simd, AnyBits) {
    SCOPED_TRACE("seed " + std::to_string(seed_));
    for (int round = 0; round < 17 * 1000 && !HasFatalFailure(); ++round) {
        Input in;
        for (std::uint32_t& w : in.words) w = static_cast<std::uint32_t>(random_());
        compare(in, round % 17);
    }
}

TEST_F(Simd, NormalNumbers) {
    SCOPED_TRACE("seed " + std::to_string(seed_));
    std::normal_distribution<float> normal;
    for (int round = 0; round < 17 * 1000 && !HasFatalFailure(); ++round) {
        Input in;
        for (std::uint32_t& w : in.words) w = std::bit_cast<std::uint32_t>(normal(random_));
        compare(in, round % 17);
    }
}

TEST_F(Simd, SpecialNumbers) {
    SCOPED_TRACE("seed " + std::to_string(seed_));
    constexpr std::uint32_t kSpecial[] = {
        0,           0x00000001u, 0x007fffffu, 0x00800000u,               // zero, subnormals, least normal
        0x7f7fffffu, 0x7f800000u, 0x7fc00000u, 0x7f800001u, 0x7fc12345u,  // greatest, infinity, NaNs
        0x3f800000u, 0x3f000000u, 0x3fc00000u, 0x4b000001u,               // 1, 0.5, 1.5, 2^23 + 1
    };
    for (int round = 0; round < 17 * 1000 && !HasFatalFailure(); ++round) {
        Input in;
        for (std::uint32_t& w : in.words)
            w = kSpecial[random_() % std::size(kSpecial)] | static_cast<std::uint32_t>(random_() & 1u) << 31;
        compare(in, round % 17);
    }
}

TEST_F(Simd, EveryHalf) {
    for (std::uint32_t h = 0; h < 0x10000u && !HasFatalFailure(); h += 16) {
        Input in;
        for (std::uint32_t i = 0; i < 16; ++i) {
            const std::uint16_t half = static_cast<std::uint16_t>(h + i);
            std::memcpy(reinterpret_cast<unsigned char*>(in.words.data()) + 2 + 2 * i, &half, sizeof half);
        }
        compare(in, 16);
    }
}

/// Around each half and each midpoint of two halves, where rounding to half changes its mind.
TEST_F(Simd, RoundingToHalf) {
    for (std::uint32_t h = 0; h <= 0x7c00u && !HasFatalFailure(); h += 2) {
        Input in;
        for (std::uint32_t i = 0; i < 16; ++i) {
            const std::uint16_t lo = static_cast<std::uint16_t>(h + i / 8), hi = static_cast<std::uint16_t>(lo + 1);
            const float a = f16_to_f32(lo), b = hi >= 0x7c00u ? 65536.0f : f16_to_f32(hi);
            const float at = i % 8 < 4 ? a : a + (b - a) / 2;
            in.words[i] = std::bit_cast<std::uint32_t>(at) + (i % 4 == 3 ? 0u : i % 4 - 1u) + (i & 4 ? 1u << 31 : 0u);
        }
        compare(in, 16);
    }
}

}  // namespace
}  // namespace quern::kernels
