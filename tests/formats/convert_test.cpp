// SPDX-License-Identifier: Apache-2.0
#include "formats/convert.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "seed.h"

namespace quern {
namespace {

std::vector<float> normal_values(std::size_t n) {
    auto random = test::seeded();
    std::normal_distribution<float> normal;
    std::vector<float> x(n);
    for (float& v : x) v = normal(random);
    return x;
}

std::vector<std::byte> buffer(DType t, std::size_t n) { return std::vector<std::byte>(*row_bytes(t, n)); }

ConversionError must_convert(DType from, std::span<const std::byte> in, DType to, std::span<std::byte> out,
                             std::uint64_t n) {
    auto r = convert(from, in, to, out, n);
    EXPECT_TRUE(r) << r.error().message;
    return r ? *r : ConversionError{};
}

TEST(Convert, EveryPairOfTypesReportsItsOwnError) {
    constexpr std::size_t n = 2048 + 512;  // more than one chunk
    const std::vector<float> x = normal_values(n);
    for (const QuantInfo& from : all_types()) {
        std::vector<std::byte> source = buffer(from.type, n);
        must_convert(DType::F32, std::as_bytes(std::span(x)), from.type, source, n);
        std::vector<float> original(n);
        from.decode(source.data(), original.data(), n);
        for (const QuantInfo& to : all_types()) {
            SCOPED_TRACE(std::string(from.name) + " to " + to.name);
            std::vector<std::byte> target = buffer(to.type, n);
            const ConversionError e = must_convert(from.type, source, to.type, target, n);
            std::vector<float> result(n);
            to.decode(target.data(), result.data(), n);
            double squares = 0, largest = 0;
            for (std::size_t i = 0; i < n; ++i) {
                const double d = std::fabs(static_cast<double>(result[i]) - static_cast<double>(original[i]));
                squares += d * d;
                largest = std::max(largest, d);
            }
            EXPECT_DOUBLE_EQ(e.rmse, std::sqrt(squares / n));
            EXPECT_EQ(e.max, largest);
            EXPECT_EQ(std::fabs(static_cast<double>(result[e.max_at]) - static_cast<double>(original[e.max_at])),
                      largest);
            EXPECT_EQ(e.non_finite, 0u);
            if (from.type == to.type) {
                EXPECT_EQ(source, target);
            }
        }
    }
}

TEST(Convert, WideningIsExact) {
    constexpr std::size_t n = 512;
    const std::vector<float> x = normal_values(n);
    for (const QuantInfo& q : all_types()) {
        std::vector<std::byte> packed = buffer(q.type, n), wide = buffer(DType::F32, n), again = buffer(q.type, n);
        must_convert(DType::F32, std::as_bytes(std::span(x)), q.type, packed, n);
        EXPECT_EQ(must_convert(q.type, packed, DType::F32, wide, n).rmse, 0.0) << q.name;
        if (q.block_elements > 1) continue;
        must_convert(DType::F32, wide, q.type, again, n);
        EXPECT_EQ(packed, again) << q.name;
    }
}

TEST(Convert, NonFiniteSourcesAreCountedApart) {
    std::vector<float> x(64, 1.0f);
    x[3] = std::numeric_limits<float>::quiet_NaN();
    x[40] = std::numeric_limits<float>::infinity();
    std::vector<std::byte> out = buffer(DType::F16, 64);
    const ConversionError e = must_convert(DType::F32, std::as_bytes(std::span(x)), DType::F16, out, 64);
    EXPECT_EQ(e.non_finite, 2u);
    EXPECT_EQ(e.rmse, 0.0);
    EXPECT_EQ(e.rms, 1.0);
}

TEST(Convert, WrongSizesAreErrors) {
    std::vector<std::byte> in(400), out(400);
    const auto message = [&](DType from, std::size_t in_bytes, DType to, std::size_t out_bytes, std::uint64_t n) {
        const auto r = convert(from, std::span(in).first(in_bytes), to, std::span(out).first(out_bytes), n);
        return r ? std::string("no error") : r.error().message;
    };
    EXPECT_EQ(message(DType::F32, 400, DType::Q4_0, 72, 100),
              "convert: 100 values are not whole blocks of Q4_0 (32 values); choose a type with a smaller block");
    EXPECT_EQ(message(DType::F32, 396, DType::F16, 200, 100),
              "convert: the input has 396 bytes, but 100 values of F32 need 400");
    EXPECT_EQ(message(DType::F32, 400, DType::F16, 199, 100),
              "convert: the output has 199 bytes, but 100 values of F16 need 200");
    EXPECT_EQ(message(DType::F32, 0, DType::F16, 0, std::uint64_t{1} << 63),
              "convert: 9223372036854775808 values of F32 are more bytes than 64 bits count");
    EXPECT_EQ(message(DType::F32, 0, DType::F16, 0, 0), "no error");
}

}  // namespace
}  // namespace quern
