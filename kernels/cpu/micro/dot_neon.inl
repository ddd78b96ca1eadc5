// SPDX-License-Identifier: Apache-2.0
// The dot product of micro/dot.inl for NEON: SDOT takes one of four lanes of a register, so 16 activations are loaded
// once for four steps. Loading each four bytes to all lanes would occupy an arithmetic pipe beside the load pipe.
#pragma once

namespace quern::kernels::QUERN_ISA_NS {

template <int kLane>
QUERN_INLINE I32x16 dot_lane(I32x16 acc, U8x64 w, int8x16_t x) {
    return {{vdotq_laneq_s32(acc.v[0], vreinterpretq_s8_u8(w.v[0]), x, kLane),
             vdotq_laneq_s32(acc.v[1], vreinterpretq_s8_u8(w.v[1]), x, kLane),
             vdotq_laneq_s32(acc.v[2], vreinterpretq_s8_u8(w.v[2]), x, kLane),
             vdotq_laneq_s32(acc.v[3], vreinterpretq_s8_u8(w.v[3]), x, kLane)}};
}

template <int kBits, bool kSigned, int N>
struct Dot {
    static_assert(N % 4 == 0);

    I32x16 sum;
    int8x16_t four_steps;  // activations of the steps g / 4 * 4 and on

    inline __attribute__((always_inline)) void begin(I32x16 init) { sum = init; }
    inline __attribute__((always_inline)) void step(int g, U8x64 w, const std::int8_t* x) {
        switch (g % 4) {
            case 0:
                four_steps = vld1q_s8(x);
                sum = dot_lane<0>(sum, w, four_steps);
                break;
            case 1: sum = dot_lane<1>(sum, w, four_steps); break;
            case 2: sum = dot_lane<2>(sum, w, four_steps); break;
            default: sum = dot_lane<3>(sum, w, four_steps); break;
        }
    }
    inline __attribute__((always_inline)) I32x16 end() const { return sum; }
};

}  // namespace quern::kernels::QUERN_ISA_NS
