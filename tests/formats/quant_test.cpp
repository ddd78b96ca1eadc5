// SPDX-License-Identifier: Apache-2.0
// Decoders against golden vectors, encoders against bounds that follow from the formats.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <ostream>
#include <string>
#include <vector>

#include "formats/dtype.h"
#include "formats/quant/all.h"
#include "seed.h"

namespace quern {

void PrintTo(const QuantInfo& q, std::ostream* out) { *out << q.name; }

namespace {

std::vector<std::byte> read_file(const std::string& name) {
    std::ifstream in(std::string(QUERN_TEST_DATA) + "/quant/" + name, std::ios::binary);
    const std::string s((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    const auto* p = reinterpret_cast<const std::byte*>(s.data());
    return {p, p + s.size()};
}

std::vector<std::byte> encode(const QuantInfo& q, const std::vector<float>& x) {
    std::vector<std::byte> blocks(x.size() / q.block_elements * q.block_bytes, std::byte{0xee});
    q.encode(x.data(), blocks.data(), x.size());
    return blocks;
}

std::vector<float> decode(const QuantInfo& q, const std::vector<std::byte>& blocks) {
    std::vector<float> x(blocks.size() / q.block_bytes * q.block_elements);
    q.decode(blocks.data(), x.data(), x.size());
    return x;
}

/// The blocks of TYPE.bin and the floats that the reference gives for them.
struct Golden {
    std::vector<std::byte> blocks;
    std::vector<float> values;
};
Golden golden(const QuantInfo& q) {
    const std::vector<std::byte> all = read_file(std::string(q.name) + ".bin");
    const std::size_t count = all.size() / (q.block_bytes + 4 * q.block_elements);
    Golden g{{all.begin(), all.begin() + static_cast<std::ptrdiff_t>(count * q.block_bytes)}, {}};
    g.values.resize(count * q.block_elements);
    if (count > 0) std::memcpy(g.values.data(), all.data() + g.blocks.size(), g.values.size() * sizeof(float));
    return g;
}

std::string type_name(const testing::TestParamInfo<QuantInfo>& i) { return i.param.name; }
std::vector<QuantInfo> types_with_blocks_of(std::vector<std::uint32_t> elements) {
    std::vector<QuantInfo> found;
    for (const QuantInfo& q : all_types()) {
        if (std::find(elements.begin(), elements.end(), q.block_elements) != elements.end()) found.push_back(q);
    }
    return found;
}

class EveryType : public testing::TestWithParam<QuantInfo> {};
class QuantizedType : public EveryType {};
class TypeOf32 : public EveryType {};
class KType : public EveryType {};
INSTANTIATE_TEST_SUITE_P(Types, EveryType, testing::ValuesIn(types_with_blocks_of({1, 32, 256})), type_name);
INSTANTIATE_TEST_SUITE_P(Types, QuantizedType, testing::ValuesIn(types_with_blocks_of({32, 256})), type_name);
INSTANTIATE_TEST_SUITE_P(Types, TypeOf32, testing::ValuesIn(types_with_blocks_of({32})), type_name);
INSTANTIATE_TEST_SUITE_P(Types, KType, testing::ValuesIn(types_with_blocks_of({256})), type_name);

TEST_P(EveryType, DecodesTheGoldenBlocksBitForBit) {
    const Golden g = golden(GetParam());
    ASSERT_FALSE(g.values.empty());
    const std::vector<float> got = decode(GetParam(), g.blocks);
    for (std::size_t i = 0; i < got.size(); ++i) {
        if (std::isnan(g.values[i])) {
            EXPECT_TRUE(std::isnan(got[i])) << i;
        } else {
            EXPECT_EQ(std::bit_cast<std::uint32_t>(got[i]), std::bit_cast<std::uint32_t>(g.values[i])) << i;
        }
    }
}

TEST_P(EveryType, DecodesFromAnyAddress) {
    const Golden g = golden(GetParam());
    std::vector<std::byte> shifted(g.blocks.size() + 1);
    std::copy(g.blocks.begin(), g.blocks.end(), shifted.begin() + 1);
    std::vector<float> got(g.values.size());
    GetParam().decode(shifted.data() + 1, got.data(), got.size());
    EXPECT_EQ(std::memcmp(got.data(), decode(GetParam(), g.blocks).data(), got.size() * sizeof(float)), 0);
}

TEST(Quant, EncodesTheGoldenFloatsAsTheReference) {  // the reference package has no encoder for the K types
    for (const char* name : {"F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4"}) {
        const std::vector<std::byte> expected = read_file(std::string(name) + ".encoded");
        ASSERT_FALSE(expected.empty()) << name;
        EXPECT_EQ(encode(*info_by_name(name), golden(*info_by_name("Q8_0")).values), expected) << name;
    }
}

TEST_P(EveryType, EncodeWritesEveryByteAndIsDeterministic) {
    auto random = test::seeded();
    std::normal_distribution<float> normal;
    std::vector<float> x(1024);
    for (float& v : x) v = normal(random);
    const QuantInfo& q = GetParam();
    const std::vector<std::byte> first = encode(q, x);
    std::vector<std::byte> second(first.size(), std::byte{0x11});
    q.encode(x.data(), second.data(), x.size());
    EXPECT_EQ(first, second);
    for (std::size_t i = 0; i < x.size(); i += q.block_elements) {  // a block does not depend on its neighbours
        std::vector<std::byte> alone(q.block_bytes);
        q.encode(x.data() + i, alone.data(), q.block_elements);
        ASSERT_EQ(std::memcmp(alone.data(), first.data() + i / q.block_elements * q.block_bytes, alone.size()), 0) << i;
    }
}

TEST_P(EveryType, ZeroesStayZero) {
    for (const float v : decode(GetParam(), encode(GetParam(), std::vector<float>(256, 0.0f)))) EXPECT_EQ(v, 0.0f);
}

TEST_P(QuantizedType, AnyInputEncodesToFiniteValues) {
    const float inf = std::numeric_limits<float>::infinity(), big = std::numeric_limits<float>::max();
    const float nan = std::numeric_limits<float>::quiet_NaN(), tiny = std::numeric_limits<float>::denorm_min();
    const QuantInfo& q = GetParam();
    auto random = test::seeded();
    for (const std::vector<float>& some : std::vector<std::vector<float>>{{nan},
                                                                          {inf},
                                                                          {-inf},
                                                                          {big},
                                                                          {-big, big},
                                                                          {tiny},
                                                                          {-tiny, tiny},
                                                                          {nan, inf, -inf, big, tiny, 1.0f},
                                                                          {1e-20f, -1e-20f},
                                                                          {1e-38f},
                                                                          {6e-8f, 0.0f},
                                                                          {65504.0f, -65504.0f, 1.0f}}) {
        std::vector<float> x(512);
        for (float& v : x) v = some[random() % some.size()];
        for (const float v : decode(q, encode(q, x))) ASSERT_TRUE(std::isfinite(v)) << some[0];
    }
}

TEST_P(EveryType, OneHotKeepsItsPlaceAndSign) {
    const QuantInfo& q = GetParam();
    for (std::size_t hot = 0; hot < 256; ++hot) {
        for (const float value : {1.0f, -1.0f}) {
            std::vector<float> x(256, 0.0f);
            x[hot] = value;
            const std::vector<float> y = decode(q, encode(q, x));
            // A lone value sets its own scale: the F16 scales, at most two, cost 2^-11 each, and the K types' integer
            // scale and minimum are the largest of the block, so they are exact codes. Q3_K and Q6_K reach only
            // (half - 1) / half of their scale on one side; they choose the other one, by the sign of the scale.
            for (std::size_t i = 0; i < 256; ++i) {
                ASSERT_NEAR(y[i], i == hot ? value : 0.0f, 2 * 0x1p-11) << hot << " at " << i;
            }
        }
    }
}

/// Largest error that an element of a 32-element block may have: the rounding of the code, and of the F16 header.
/// `range`: the span that the codes cover; `levels`: the steps in it.
double block32_bound(const QuantInfo& q, const float* x) {
    const auto [lo, hi] = std::minmax_element(x, x + 32);
    const double low = *lo, high = *hi, extreme = std::max(std::fabs(low), std::fabs(high));
    const double f16 = 0x1p-11, subnormal = 0x1p-25;
    // Headers of the form d, m: half a step, plus the rounding of d, seen `levels` times, and of m.
    if (q.type == DType::Q4_1 || q.type == DType::Q5_1) {
        const double levels = q.type == DType::Q4_1 ? 15 : 31, step = (high - low) / levels;
        return step / 2 + (high - low) * f16 + std::fabs(low) * f16 + (levels + 1) * subnormal;
    }
    if (q.type == DType::Q8_0) return extreme / 127 / 2 + extreme * f16 + 127 * subnormal;
    // The extreme lies in [4, 8) times a power of two, with codes for 4 and 6 of it: 1 at 5 and 2 near 8 are lost at most.
    if (q.type == DType::MXFP4) return extreme / 4;
    // Symmetric with an even number of codes: a value as large as the extreme, with the other sign, has no code and
    // loses a whole step.
    const double half = q.type == DType::Q4_0 ? 8 : 16;
    return extreme / half + extreme * f16 + half * subnormal;
}

TEST_P(TypeOf32, ErrorsStayWithinTheFormatsSteps) {
    const QuantInfo& q = GetParam();
    auto random = test::seeded();
    std::normal_distribution<float> normal;
    std::vector<float> x(32 * 512);
    for (std::size_t i = 0; i < x.size(); ++i)
        x[i] = normal(random) * std::ldexp(1.0f, static_cast<int>(i / 32 % 24) - 18);
    const std::vector<float> y = decode(q, encode(q, x));
    for (std::size_t i = 0; i < x.size(); ++i) {
        // 1e-6: the float arithmetic of the encoder itself, a few roundings of 2^-24.
        ASSERT_LE(std::fabs(y[i] - x[i]), block32_bound(q, &x[i / 32 * 32]) * (1 + 1e-6)) << i;
    }
}

/// Shape of the K types: values in a group, codes above zero, whether the group has a minimum, and the largest integer
/// scale.
struct KShape {
    int group, top;
    bool affine;
    int scale_top;
};
KShape k_shape(DType t) {
    switch (t) {
        case DType::Q2_K:
            return {16, 3, true, 15};
        case DType::Q3_K:
            return {16, 4, false, 32};
        case DType::Q4_K:
            return {32, 15, true, 63};
        case DType::Q5_K:
            return {32, 31, true, 63};
        default:
            return {16, 32, false, 128};
    }
}

TEST_P(KType, SearchedScalesBeatUniformSteps) {
    const QuantInfo& q = GetParam();
    const KShape k = k_shape(q.type);
    auto random = test::seeded();
    std::normal_distribution<float> normal;
    std::vector<float> x(256 * 64);
    for (float& v : x) v = normal(random);
    const std::vector<float> y = decode(q, encode(q, x));
    double error = 0, expected = 0;
    for (std::size_t block = 0; block < x.size(); block += 256) {
        double widest = 0;
        for (std::size_t g = block; g < block + 256; g += static_cast<std::size_t>(k.group)) {
            const auto [lo, hi] = std::minmax_element(&x[g], &x[g] + k.group);
            const double span =
                k.affine ? std::max(*hi, 0.0f) - std::min(*lo, 0.0f) : std::max(std::fabs(*lo), std::fabs(*hi));
            widest = std::max(widest, span);
            // Rounding to steps of span / top leaves a variance of step^2 / 12. The search only improves on it.
            expected += k.group * std::pow(span / k.top, 2) / 12;
        }
        // Rounding the group's scale to an integer adds step^2 / 12 with steps of widest / scale_top, times the mean
        // square of the value's place in its span, 1/3 if uniform; rounding the minimum adds as much for every value.
        expected += 256 * std::pow(widest / k.scale_top, 2) / 12 * (k.affine ? 4.0 / 3 : 1.0 / 3);
    }
    for (std::size_t i = 0; i < x.size(); ++i)
        error += std::pow(static_cast<double>(y[i]) - static_cast<double>(x[i]), 2);
    EXPECT_LE(error, expected);
    EXPECT_GE(error, expected / 4) << "this bound says little: is the figure still of this format?";
}

TEST(Quant, MoreBitsMeanLessError) {
    auto random = test::seeded();
    std::normal_distribution<float> normal;
    std::vector<float> x(256 * 64);
    for (float& v : x) v = normal(random);
    double last = 0;
    for (const char* name : {"F16", "Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K"}) {
        const QuantInfo& q = *info_by_name(name);
        const std::vector<float> y = decode(q, encode(q, x));
        double error = 0;
        for (std::size_t i = 0; i < x.size(); ++i) error += std::pow(static_cast<double>(y[i] - x[i]), 2);
        EXPECT_GT(error, last) << name;
        last = error;
    }
}

TEST(Quant, OneFlippedBitOfABlockIsSeen) {  // the golden test can fail: every bit of every type matters
    for (const QuantInfo& q : all_types()) {
        const Golden g = golden(q);
        const std::vector<float> good = decode(q, g.blocks);
        for (std::size_t bit = 0; bit < 8 * q.block_bytes; ++bit) {
            std::vector<std::byte> bad = g.blocks;
            bad[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
            const std::vector<float> got = decode(q, bad);
            ASSERT_NE(std::memcmp(got.data(), good.data(), got.size() * sizeof(float)), 0) << q.name << " bit " << bit;
        }
    }
}

TEST(Quant, PackedScalesOfEveryCodeComeBack) {
    for (int shift = 0; shift < 64; ++shift) {
        std::uint8_t packed[12] = {};
        const auto scale = [&](int j) { return static_cast<std::uint8_t>((shift + 9 * j) % 64); };
        const auto min = [&](int j) { return static_cast<std::uint8_t>((5 * shift + 23 * j + 1) % 64); };
        for (int j = 0; j < 8; ++j) quant::pack_scale_min(packed, j, {scale(j), min(j)});
        for (int j = 0; j < 8; ++j) {
            EXPECT_EQ(quant::unpack_scale_min(packed, j).scale, scale(j));
            EXPECT_EQ(quant::unpack_scale_min(packed, j).min, min(j));
        }
    }
}

}  // namespace
}  // namespace quern
