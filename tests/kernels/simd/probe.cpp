// SPDX-License-Identifier: Apache-2.0
// Every operation of a vector vocabulary once. Compiled once an ISA, with the flags of its unit, so no standard library.
#include "tests/kernels/simd/probe.h"

#include QUERN_SIMD_HEADER

namespace quern::kernels::QUERN_ISA_NS {
namespace {

struct Sink {
    Probe* at;
    void put(const char* name, F32x16 a) { f_store(reinterpret_cast<float*>(raw(name, true)), a); }
    void put(const char* name, I32x16 a) { i_store(reinterpret_cast<std::int32_t*>(raw(name, false)), a); }
    void put(const char* name, float a) { __builtin_memcpy(raw(name, true), &a, sizeof a); }
    /// Each byte of each lane, by dot products with one-hot columns: there is no byte store.
    void put_bytes(const char* name, U8x64 a) {
        static constexpr std::int8_t kOneHot[4][4] = {{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}};
        for (const auto& column : kOneHot) put(name, i_dot_s8(i_zero(), a, column));
    }
    unsigned char* raw(const char* name, bool floats) {
        at->name = name;
        at->floats = floats;
        return (at++)->bytes;
    }
};

}  // namespace

/// Fills `out`, zeroed by the caller; gives the number of results. in: kProbeInput bytes; those from 256 on are dot
/// product operands, without -128. n: lanes of the partial operations.
int probe(const unsigned char* in, int n, Probe* out) {
    Sink s{out};
    const float* p = reinterpret_cast<const float*>(in);
    const F32x16 a = f_load(p), b = f_load(p + 16), c = f_load(p + 32);
    s.put("f_load_n", f_load_n(p, n));
    f_store_n(reinterpret_cast<float*>(s.raw("f_store_n", true)), a, n);
    s.put("f_set1", f_set1(p[3]));
    s.put("f_zero", f_zero());
    s.put("f_add", f_add(a, b));
    s.put("f_sub", f_sub(a, b));
    s.put("f_mul", f_mul(a, b));
    s.put("f_div", f_div(a, b));
    s.put("f_fma", f_fma(a, b, c));
    s.put("f_max", f_max(a, b));
    s.put("f_min", f_min(a, b));
    s.put("f_abs", f_abs(a));
    s.put("f_select_n", f_select_n(a, b, n));
    s.put("f_reduce_add", f_reduce_add(a));
    s.put("f_reduce_max", f_reduce_max(a));
    s.put("f_load_f16", f_load_f16(in + 2));
    f_store_f16(s.raw("f_store_f16", false), a);
    s.put("f_load_bf16", f_load_bf16(in + 2));
    const I32x16 i = i_cast_f(a), j = i_cast_f(b);
    s.put("i_cast_f", i);
    s.put("i_set1", i_set1(-77));
    s.put("i_add", i_add(i, j));
    s.put("i_mul", i_mul(i, j));
    s.put("i_shl<1>", i_shl<1>(i));
    s.put("i_shl<23>", i_shl<23>(i));
    s.put("f_nibble<0>", f_nibble<0>(i));
    s.put("f_nibble<20>", f_nibble<20>(i));
    s.put("f_nibble<28>", f_nibble<28>(i));
    s.put("i_load_u8", i_load_u8(in + 1));
    s.put("i_load_s8", i_load_s8(in + 1));
    s.put("f_from_i", f_from_i(i));
    s.put("i_from_f, fractions", i_from_f(f_div(f_from_i(i), f_set1(67108864.0f))));
    s.put("i_from_f, large", i_from_f(f_div(f_from_i(i), f_set1(2.0f))));
    s.put("f_cast_i", f_cast_i(i));
    i_store_s8(reinterpret_cast<std::int8_t*>(s.raw("i_store_s8", false)), i_load_s8(in + 3));
    const U8x64 u = u_load(in + 5), v = u_load(in + 64);
    const std::int8_t* x = reinterpret_cast<const std::int8_t*>(in + 256);
    s.put("i_dot_u7", i_dot_u7(i, u_and(u, u_set1(0x7f)), x));
    s.put("i_dot_s8", i_dot_s8(j, u, x + 4));
    s.put_bytes("u_and", u_and(u, v));
    s.put_bytes("u_or", u_or(u, v));
    s.put_bytes("u_shr<1>", u_shr<1>(u));
    s.put_bytes("u_shr<4>", u_shr<4>(u));
    s.put_bytes("u_shr<7>", u_shr<7>(u));
    s.put_bytes("u_shl<1>", u_shl<1>(u));
    s.put_bytes("u_shl<4>", u_shl<4>(u));
    s.put_bytes("u_lookup", u_lookup(in + 3, u_shr<4>(u)));
    return static_cast<int>(s.at - out);
}

}  // namespace quern::kernels::QUERN_ISA_NS
