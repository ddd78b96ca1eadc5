// SPDX-License-Identifier: Apache-2.0
#include "formats/dtype.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "formats/quant/all.h"

namespace quern {
namespace {

// Blocks are copied out before use: a tensor's address need not suit the alignment of its block struct.
template <class T>
void decode_blocks(const std::byte* blocks, float* out, std::size_t n) {
    for (std::size_t i = 0; i < n / T::elements; ++i) {
        typename T::Block b;
        std::memcpy(&b, blocks + i * sizeof b, sizeof b);
        T::decode(b, out + i * T::elements);
    }
}

template <class T>
void encode_blocks(const float* in, std::byte* blocks, std::size_t n) {
    for (std::size_t i = 0; i < n / T::elements; ++i) {
        typename T::Block b;
        T::encode(in + i * T::elements, b);
        std::memcpy(blocks + i * sizeof b, &b, sizeof b);
    }
}

template <class... T>
constexpr std::array<QuantInfo, sizeof...(T)> table_of(quant::TypeList<T...>) {
    return {QuantInfo{T::type, T::name, T::elements, sizeof(typename T::Block), decode_blocks<T>, encode_blocks<T>}...};
}

constexpr auto kTypes = table_of(quant::AllTypes{});

}  // namespace

std::span<const QuantInfo> all_types() { return kTypes; }

const QuantInfo* info_by_id(std::uint32_t gguf_id) {
    for (const QuantInfo& t : kTypes) {
        if (static_cast<std::uint32_t>(t.type) == gguf_id) return &t;
    }
    return nullptr;
}

const QuantInfo& info(DType t) {
    const QuantInfo* found = info_by_id(static_cast<std::uint32_t>(t));
    return found ? *found : kTypes.front();
}

const QuantInfo* info_by_name(std::string_view name) {
    for (const QuantInfo& t : kTypes) {
        if (name == t.name) return &t;
    }
    return nullptr;
}

std::optional<std::uint64_t> row_bytes(DType t, std::uint64_t n) {
    const QuantInfo& q = info(t);
    if (n % q.block_elements != 0) return std::nullopt;
    const std::uint64_t blocks = n / q.block_elements;
    if (blocks > UINT64_MAX / q.block_bytes) return std::nullopt;
    return blocks * q.block_bytes;
}

float f16_to_f32(std::uint16_t h) {
    const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000u) << 16;
    const std::uint32_t exponent = (h >> 10) & 31u, mantissa = h & 0x3ffu;
    if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24, exact in F32
        const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
        return std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | sign);
    }
    const std::uint32_t widened = exponent == 31 ? 255u : exponent + 112u;
    return std::bit_cast<float>(sign | (widened << 23) | (mantissa << 13));
}

std::uint16_t f32_to_f16(float f) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(f), magnitude = bits & 0x7fffffffu;
    const std::uint32_t sign = (bits >> 16) & 0x8000u;
    std::uint32_t half;
    if (magnitude > 0x7f800000u) {  // NaN: the top of the payload is kept, and is never all zero
        const std::uint32_t payload = (magnitude >> 13) & 0x3ffu;
        half = 0x7c00u | (payload ? payload : 0x200u);
    } else if (magnitude >= 0x477ff000u) {  // 65520 and more round to infinity
        half = 0x7c00u;
    } else if (magnitude < 0x38800000u) {  // below 2^-14: the sum's last mantissa bits count units of 2^-24
        const float sum = std::bit_cast<float>(magnitude) + 0.5f;
        half = std::bit_cast<std::uint32_t>(sum) - 0x3f000000u;
    } else {
        half = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    }
    return static_cast<std::uint16_t>(sign | half);
}

float bf16_to_f32(std::uint16_t h) { return std::bit_cast<float>(static_cast<std::uint32_t>(h) << 16); }

std::uint16_t f32_to_bf16(float f) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(f);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {  // NaN, as in f32_to_f16
        const std::uint32_t top = bits >> 16;
        return static_cast<std::uint16_t>((top & 0x7fu) ? top : top | 0x40u);
    }
    return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace quern
