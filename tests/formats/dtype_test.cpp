// SPDX-License-Identifier: Apache-2.0
#include "formats/dtype.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <string>

#include "seed.h"

namespace quern {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

TEST(DType, BlockTableIsTheOneOfGguf) {
    struct Row {
        std::uint32_t id, elements, bytes;
    };
    const std::map<std::string, Row> table = {
        {"F32", {0, 1, 4}},       {"F16", {1, 1, 2}},       {"Q4_0", {2, 32, 18}},    {"Q4_1", {3, 32, 20}},
        {"Q5_0", {6, 32, 22}},    {"Q5_1", {7, 32, 24}},    {"Q8_0", {8, 32, 34}},    {"Q2_K", {10, 256, 84}},
        {"Q3_K", {11, 256, 110}}, {"Q4_K", {12, 256, 144}}, {"Q5_K", {13, 256, 176}}, {"Q6_K", {14, 256, 210}},
        {"BF16", {30, 1, 2}},     {"MXFP4", {39, 32, 17}}};
    ASSERT_EQ(all_types().size(), table.size());
    for (const auto& [name, row] : table) {
        SCOPED_TRACE(name);
        const QuantInfo* q = info_by_name(name);
        ASSERT_NE(q, nullptr);
        EXPECT_EQ(static_cast<std::uint32_t>(q->type), row.id);
        EXPECT_EQ(q->block_elements, row.elements);
        EXPECT_EQ(q->block_bytes, row.bytes);
        EXPECT_EQ(info_by_id(row.id), q);
        EXPECT_EQ(&info(q->type), q);
    }
}

TEST(DType, UnknownIdsAndNamesAreNull) {
    for (const std::uint32_t id : {4u, 5u, 9u, 15u, 31u, 36u, 1000u, 0xffffffffu}) EXPECT_EQ(info_by_id(id), nullptr);
    for (const char* name : {"", "q4_0", "Q4_2", "F64"}) EXPECT_EQ(info_by_name(name), nullptr);
}

TEST(DType, RowBytes) {
    EXPECT_EQ(row_bytes(DType::Q4_K, 512), 288u);
    EXPECT_EQ(row_bytes(DType::Q4_K, 511), std::nullopt);
    EXPECT_EQ(row_bytes(DType::Q8_0, 0), 0u);
    EXPECT_EQ(row_bytes(DType::F32, std::uint64_t{1} << 62), std::nullopt) << "2^64 bytes do not fit";
    EXPECT_EQ(row_bytes(DType::F32, (std::uint64_t{1} << 62) - 1), UINT64_MAX - 3);
}

// What a code means, from the definition of the format and in double arithmetic, beside the bit tricks under test.
double value_of(std::uint32_t exponent, std::uint32_t mantissa, int mantissa_bits, int bias) {
    const double fraction = std::ldexp(mantissa, -mantissa_bits);
    return exponent == 0 ? std::ldexp(fraction, 1 - bias)
                         : std::ldexp(1.0 + fraction, static_cast<int>(exponent) - bias);
}

template <class Decode, class Encode>
void check_all_codes(int mantissa_bits, std::uint32_t top_exponent, Decode decode, Encode encode) {
    const int bias = static_cast<int>(top_exponent / 2);
    for (std::uint32_t code = 0; code < 65536; ++code) {
        const std::uint32_t exponent = (code & 0x7fff) >> mantissa_bits, mantissa = code & ((1u << mantissa_bits) - 1);
        const float f = decode(static_cast<std::uint16_t>(code));
        ASSERT_EQ(std::signbit(f), code >= 0x8000) << code;
        if (exponent == top_exponent) {
            ASSERT_EQ(std::isnan(f), mantissa != 0) << code;
            ASSERT_EQ(std::isinf(f), mantissa == 0) << code;
        } else {
            ASSERT_EQ(std::fabs(f), value_of(exponent, mantissa, mantissa_bits, bias)) << code;
        }
        ASSERT_EQ(encode(f), code) << "not the inverse";
    }
}

TEST(DType, EveryF16Code) { check_all_codes(10, 31, f16_to_f32, f32_to_f16); }
TEST(DType, EveryBf16Code) { check_all_codes(7, 255, bf16_to_f32, f32_to_bf16); }

// Between neighbouring codes: just below the middle, the middle (to the even code), just above it.
template <class Decode, class Encode>
void check_rounding(std::uint16_t first_infinite, Decode decode, Encode encode) {
    for (std::uint16_t code = 0; code + 1 < first_infinite; ++code) {
        const std::uint16_t next = static_cast<std::uint16_t>(code + 1);
        const double middle = (static_cast<double>(decode(code)) + static_cast<double>(decode(next))) / 2;
        const float m = static_cast<float>(middle);
        ASSERT_EQ(static_cast<double>(m), middle) << "the middle must be exact for this test to mean anything";
        const std::uint16_t even = code % 2 == 0 ? code : next;
        for (const float sign : {1.0f, -1.0f}) {
            const std::uint16_t bit = sign < 0 ? 0x8000 : 0;
            ASSERT_EQ(encode(sign * m), even | bit) << code;
            ASSERT_EQ(encode(sign * std::nextafter(m, 0.0f)), code | bit) << code;
            ASSERT_EQ(encode(sign * std::nextafter(m, kInf)), next | bit) << code;
        }
    }
}

TEST(DType, F16RoundsToNearestEven) { check_rounding(0x7c00, f16_to_f32, f32_to_f16); }
TEST(DType, Bf16RoundsToNearestEven) { check_rounding(0x7f80, bf16_to_f32, f32_to_bf16); }

TEST(DType, F16OverflowUnderflowAndNan) {
    EXPECT_EQ(f32_to_f16(65504.0f), 0x7bff);
    EXPECT_EQ(f32_to_f16(65519.996f), 0x7bff);
    EXPECT_EQ(f32_to_f16(65520.0f), 0x7c00) << "the middle to 65536 rounds to the even code, infinity";
    EXPECT_EQ(f32_to_f16(-3e38f), 0xfc00);
    EXPECT_EQ(f32_to_f16(0x1p-25f), 0x0000) << "half the smallest subnormal rounds to even";
    EXPECT_EQ(f32_to_f16(std::nextafter(0x1p-25f, 1.0f)), 0x0001);
    EXPECT_EQ(f32_to_f16(0x1p-149f), 0x0000);
    EXPECT_EQ(f32_to_f16(-0.0f), 0x8000);
    // A NaN whose payload lies only in the bits that are cut off must not become infinity.
    EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(std::bit_cast<float>(0x7f800001u)))));
    EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::bit_cast<float>(0xff800001u)))));
    EXPECT_EQ(f32_to_bf16(std::numeric_limits<float>::max()), 0x7f80);
}

TEST(DType, RandomFloatsRoundToTheNearestCode) {
    auto random = test::seeded();
    for (int i = 0; i < 200000; ++i) {
        const float f = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
        if (std::isnan(f)) continue;
        const std::uint16_t code = f32_to_f16(f);
        if (std::fabs(f) >= 65520.0f) {
            ASSERT_TRUE(std::isinf(f16_to_f32(code))) << f;
            continue;
        }
        // Half a unit in the last place: 2^-11 of the power of two below, or half a subnormal step.
        const double half_step = std::max(std::ldexp(1.0, std::ilogb(f == 0 ? 1e-30f : f) - 11), 0x1p-25);
        ASSERT_LE(std::fabs(static_cast<double>(f16_to_f32(code)) - static_cast<double>(f)), half_step) << f;
    }
}

}  // namespace
}  // namespace quern
