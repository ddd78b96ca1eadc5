// SPDX-License-Identifier: Apache-2.0
// The tensor types, derived from the one list in formats/quant/all.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace quern {

/// Values are the GGUF type ids, so a file's id converts directly once it was looked up.
enum class DType : std::uint32_t {
    F32 = 0,
    F16 = 1,
    Q4_0 = 2,
    Q4_1 = 3,
    Q5_0 = 6,
    Q5_1 = 7,
    Q8_0 = 8,
    Q2_K = 10,
    Q3_K = 11,
    Q4_K = 12,
    Q5_K = 13,
    Q6_K = 14,
    BF16 = 30,
    MXFP4 = 39,
};

/// Values that stand for themselves, without a block's scale.
constexpr bool is_float(DType t) { return t == DType::F32 || t == DType::F16 || t == DType::BF16; }

/// What the rest of the house needs to know of a type; one entry a type, from formats/quant/<type>.h.
struct QuantInfo {
    DType type;
    const char* name;              // as users write it: "Q4_1"
    std::uint32_t block_elements;  // values in a block: 1, 32 or 256
    std::uint32_t block_bytes;
    /// Scalar decode of n values (a multiple of block_elements) from n / block_elements blocks: the oracle.
    void (*decode)(const std::byte* blocks, float* out, std::size_t n);
    /// Scalar encode, deterministic; n as above.
    void (*encode)(const float* in, std::byte* blocks, std::size_t n);
};

std::span<const QuantInfo> all_types();
/// Entry of a known type. Never fails for an enumerator of DType.
const QuantInfo& info(DType t);
/// Entry for a type id found in a file; nullptr if Quern does not know it.
const QuantInfo* info_by_id(std::uint32_t gguf_id);
const QuantInfo* info_by_name(std::string_view name);
/// Bytes of a row of `n` values, nullopt if n is not a multiple of the block or the product wraps.
std::optional<std::uint64_t> row_bytes(DType t, std::uint64_t n);

// F16 and BF16 conversions, round to nearest even, NaN and infinities kept.
float f16_to_f32(std::uint16_t h);
std::uint16_t f32_to_f16(float f);
float bf16_to_f32(std::uint16_t h);
std::uint16_t f32_to_bf16(float f);

}  // namespace quern
