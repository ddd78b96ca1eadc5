// SPDX-License-Identifier: Apache-2.0
// Panels of [k][16 rows]. A row may have any length: fetch() of a last block that is not whole gives 0 beyond it.
#define HEAD_UNIT 64
struct Head { uint none; };
Head head(uvec2 w, uint p, uint b, uint rq) { return Head(0); }

struct Raw { Bits v[8]; };   // values 4 g .. 4 g + 3 and 16 + 4 g ..
uint value_at(uint b, uint g, uint i) { return 32 * b + 4 * g + (i & 3) + (i >> 2) * 16; }
Raw fetch(uvec2 w, uint p, uint b, uint rq, uint g) {
    Raw r;
    [[unroll]] for (uint i = 0; i < 8; ++i) r.v[i] = fetch_k(w, p, value_at(b, g, i), rq);
    return r;
}
Raw fetch_below(uvec2 w, uint p, uint b, uint rq, uint g, uint n_k) {
    Raw r;
    [[unroll]] for (uint i = 0; i < 8; ++i) {
        const uint k = value_at(b, g, i);
        r.v[i] = Bits(0);
        if (k < n_k) r.v[i] = fetch_k(w, p, k, rq);
    }
    return r;
}
