// SPDX-License-Identifier: Apache-2.0
// Any tensor type to any tensor type, with error figures.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "formats/dtype.h"
#include "quern/result.hpp"

namespace quern {

/// How far the result of a conversion lies from its source, over the values that are finite in the source.
struct ConversionError {
    double rmse = 0.0;             // root of the mean squared difference
    double rms = 0.0;              // root of the mean squared source value: rmse / rms is the relative error
    double max = 0.0;              // largest absolute difference
    std::uint64_t max_at = 0;      // index of the value where it is
    std::uint64_t non_finite = 0;  // source values that are NaN or infinite
};

/// Converts n values. n must be a multiple of both types' blocks, and `in` and `out` exactly as long as n values need;
/// they may not overlap. Equal types copy the bytes.
Result<ConversionError> convert(DType from, std::span<const std::byte> in, DType to, std::span<std::byte> out,
                                std::uint64_t n);

}  // namespace quern
