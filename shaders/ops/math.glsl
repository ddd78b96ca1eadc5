// SPDX-License-Identifier: Apache-2.0
// exp and tanh by the polynomials of kernels/cpu/ops/math.inl, and halves by integers: what a driver makes of the built-in
// ones differs too much from device to device.
struct ExpParts { float n, em1; };
ExpParts exp_parts(float x) {
    const float n = roundEven(x * uintBitsToFloat(0x3fb8aa3bu));              // 1 / ln 2
    float r = fma(n, uintBitsToFloat(0xbf317200u), x);                        // ln 2 in two parts
    r = fma(n, uintBitsToFloat(0xb5bfbe8eu), r);
    float q = uintBitsToFloat(0x3ab510d6u);
    q = fma(q, r, uintBitsToFloat(0x3c091db5u));
    q = fma(q, r, uintBitsToFloat(0x3d2aac7du));
    q = fma(q, r, uintBitsToFloat(0x3e2aaa48u));
    q = fma(q, r, uintBitsToFloat(0x3efffffeu));
    return ExpParts(n, fma(q * r, r, r));
}
float exp2_int(float n) { return uintBitsToFloat(uint(int(n) + 127) << 23); }   // -126 .. 127

/// exp(x) for x <= 0, 0 from about -64 on.
float exp_neg(float x) {
    if (!(x > -64.0)) return 0.0;
    const ExpParts e = exp_parts(x);
    return (e.em1 + 1.0) * exp2_int(e.n);
}
/// 0 below -87, infinity (or the largest number) above 88.7.
float exp_any(float x) {
    const ExpParts e = exp_parts(clamp(x, -87.0, 89.0));
    const float h = floor(e.n * 0.5);
    return x < -87.0 ? 0.0 : (e.em1 + 1.0) * exp2_int(h) * exp2_int(e.n - h);
}
float tanh_any(float x) {
    const ExpParts e = exp_parts(clamp(x + x, -20.0, 20.0));
    const float s = exp2_int(e.n), y = fma(s, e.em1, s - 1.0);
    return y / (y + 2.0);
}

/// Bits of the half nearest to x, ties to even; overflow to infinity.
uint to_half(float x) {
    const uint u = floatBitsToUint(x), s = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return s | 0x7e00u | ((a >> 13) & 0x1ffu);
    if (a >= 0x477ff000u) return s | 0x7c00u;
    if (a >= 0x38800000u) return s | ((a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13);
    if (a < 0x33000000u) return s;                                            // at most half the least one
    const uint shift = 126u - (a >> 23), m = (a & 0x7fffffu) | 0x800000u;     // a multiple of 2^-24 is wanted
    const uint q = m >> shift, rest = m & ((1u << shift) - 1u), half_ = 1u << (shift - 1u);
    return s | (q + uint(rest > half_ || (rest == half_ && (q & 1u) == 1u)));
}
/// Its value, subnormal halves too.
float from_half(uint h) {
    const uint s = (h & 0x8000u) << 16, a = h & 0x7fffu;
    if (a >= 0x7c00u) return uintBitsToFloat(s | ((a << 13) + 0x70000000u));
    if (a >= 0x400u) return uintBitsToFloat(s | ((a << 13) + 0x38000000u));
    const float x = float(a) * uintBitsToFloat(0x33800000u);                  // 2^-24
    return s != 0u ? -x : x;
}
