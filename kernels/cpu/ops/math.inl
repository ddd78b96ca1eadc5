// SPDX-License-Identifier: Apache-2.0
// exp and tanh over the 16-lane vocabulary. Every step is one correctly rounded operation, so every table agrees to
// the bit. Include after a simd/*.h.
//
// x = n ln2 + r with n the nearest integer, |r| <= ln2 / 2. Adding 1.5 * 2^23 rounds to nearest and leaves n in the low
// bits of the sum, from where a shift makes 2^n: no conversion that NaN could upset. NaN passes through f_max and f_min
// as their second operand.
#pragma once

namespace quern::kernels::QUERN_ISA_NS {

constexpr float kRoundMagic = 12582912.0f;  // 1.5 * 2^23

struct ExpParts {
    F32x16 n;    // integer
    F32x16 em1;  // exp(r) - 1
};

QUERN_INLINE ExpParts exp_parts(F32x16 x) {
    const F32x16 magic = f_set1(kRoundMagic);
    const F32x16 n = f_sub(f_fma(x, f_set1(0x1.715476p+0f), magic), magic);
    // ln2 in two parts; the first has 15 bits, so n * hi is exact.
    F32x16 r = f_fma(n, f_set1(-0x1.62e4p-1f), x);
    r = f_fma(n, f_set1(-0x1.7f7d1cp-20f), r);
    // Minimax of (exp(r) - 1 - r) / r^2 for |r| < 0.3475: 4e-9 relative to exp(r), a fifteenth of half an ulp.
    F32x16 q = f_set1(0x1.6a21acp-10f);
    q = f_fma(q, r, f_set1(0x1.123b6ap-7f));
    q = f_fma(q, r, f_set1(0x1.5558fap-5f));
    q = f_fma(q, r, f_set1(0x1.55549p-3f));
    q = f_fma(q, r, f_set1(0x1.fffffcp-2f));
    return {n, f_fma(f_mul(q, r), r, r)};
}

/// 2^n for integer n in -126..127.
QUERN_INLINE F32x16 exp2_int(F32x16 n) { return f_cast_i(i_shl<23>(i_cast_f(f_add(n, f_set1(kRoundMagic + 127.0f))))); }

/// exp(x) within 1 ulp: subnormal results kept, 0 below -104, infinity above 88.73, NaN stays NaN.
QUERN_INLINE F32x16 f_exp(F32x16 x) {
    const ExpParts e = exp_parts(f_max(f_set1(-105.0f), f_min(f_set1(89.0f), x)));
    // 2^n in two factors, since n spans -151..128; only the last product rounds.
    const F32x16 magic = f_set1(kRoundMagic);
    const F32x16 half = f_sub(f_fma(e.n, f_set1(0.5f), magic), magic);
    const F32x16 p = f_add(e.em1, f_set1(1.0f));
    return f_mul(f_mul(p, exp2_int(half)), exp2_int(f_sub(e.n, half)));
}

/// exp(x) for x <= 0: the same bits as f_exp down to -64, 0 below -64.2. Softmax weights that small vanish beside the
/// largest, which is 1; kept, they and their products would be subnormal, which costs x86 a hundred cycles each.
QUERN_INLINE F32x16 f_exp_neg(F32x16 x) {
    const ExpParts e = exp_parts(f_max(f_set1(-64.5f), x));  // n >= -93
    const F32x16 s = f_cast_i(i_shl<23>(i_cast_f(f_add(e.n, f_set1(kRoundMagic + 93.0f)))));  // 2^(n - 34), 0 for -93
    return f_mul(f_add(e.em1, f_set1(1.0f)), f_mul(s, f_set1(0x1p34f)));
}

/// tanh(x) within 3 ulp, through y = exp(2x) - 1: tanh = y / (y + 2), which keeps small x exact.
QUERN_INLINE F32x16 f_tanh(F32x16 x) {
    const F32x16 limit = f_set1(20.0f);  // tanh(10) rounds to 1
    const ExpParts e = exp_parts(f_max(f_set1(-20.0f), f_min(limit, f_add(x, x))));
    const F32x16 s = exp2_int(e.n);
    const F32x16 y = f_fma(s, e.em1, f_sub(s, f_set1(1.0f)));
    return f_div(y, f_add(y, f_set1(2.0f)));
}

}  // namespace quern::kernels::QUERN_ISA_NS
