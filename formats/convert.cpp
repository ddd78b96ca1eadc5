// SPDX-License-Identifier: Apache-2.0
#include "formats/convert.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "formats/text.h"

namespace quern {
namespace {

constexpr std::size_t kChunk = 2048;  // a multiple of every block; the three buffers stay in the first-level cache

Status check_size(DType t, std::uint64_t n, std::size_t bytes, std::string_view side) {
    const auto need = row_bytes(t, n);
    if (need && *need == bytes) return {};
    const QuantInfo& q = info(t);
    if (n % q.block_elements != 0) {
        return Error{Errc::invalid_argument, cat("convert: ", n, " values are not whole blocks of ", q.name, " (",
                                                 q.block_elements, " values); choose a type with a smaller block")};
    }
    if (!need) {
        return Error{Errc::invalid_argument,
                     cat("convert: ", n, " values of ", q.name, " are more bytes than 64 bits count")};
    }
    return Error{Errc::invalid_argument,
                 cat("convert: the ", side, " has ", bytes, " bytes, but ", n, " values of ", q.name, " need ", *need)};
}

}  // namespace

Result<ConversionError> convert(DType from, std::span<const std::byte> in, DType to, std::span<std::byte> out,
                                std::uint64_t n) {
    if (Status s = check_size(from, n, in.size(), "input"); !s) return std::move(s).error();
    if (Status s = check_size(to, n, out.size(), "output"); !s) return std::move(s).error();
    const QuantInfo &source = info(from), &target = info(to);
    if (from == to) std::copy(in.begin(), in.end(), out.begin());

    std::array<float, kChunk> original, result;
    ConversionError e;
    double squared_error = 0.0, squared = 0.0;
    for (std::uint64_t at = 0; at < n; at += kChunk) {
        const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(kChunk, n - at));
        source.decode(in.data() + at / source.block_elements * source.block_bytes, original.data(), count);
        std::byte* blocks = out.data() + at / target.block_elements * target.block_bytes;
        if (from != to) target.encode(original.data(), blocks, count);
        target.decode(blocks, result.data(), count);
        for (std::size_t i = 0; i < count; ++i) {
            if (!std::isfinite(original[i])) {
                ++e.non_finite;
                continue;
            }
            const double x = original[i], d = std::fabs(static_cast<double>(result[i]) - x);
            squared += x * x;
            squared_error += d * d;
            if (d > e.max) {
                e.max = d;
                e.max_at = at + i;
            }
        }
    }
    const std::uint64_t finite = n - e.non_finite;
    if (finite > 0) {
        e.rmse = std::sqrt(squared_error / static_cast<double>(finite));
        e.rms = std::sqrt(squared / static_cast<double>(finite));
    }
    return e;
}

}  // namespace quern
