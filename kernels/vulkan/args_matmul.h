// SPDX-License-Identifier: Apache-2.0
// Push constants of the kernels that read weights (shaders/matvec.comp, matmul.comp, matmul_coop.comp, embed.comp) and of
// the rounding of activations (quantize_act.comp). Like args.h: C++ and GLSL. Addresses are multiples of 16, those of
// panels of 64. "word": 16 bytes.
#ifndef QUERN_VULKAN_ARGS_MATMUL_H
#define QUERN_VULKAN_ARGS_MATMUL_H
#ifdef __cplusplus
#include <cstdint>
namespace quern::vulkan {
using uint = std::uint32_t;
#define ADDR std::uint64_t
#else
#define ADDR uvec2
#endif

// Where a kernel finds its number of columns (rows of x and y).
#define QUERN_COLS_PUSHED 0   // n_cols
#define QUERN_COLS_TOKENS 1   // RunHeader::n_tokens
#define QUERN_COLS_OUTPUTS 2  // RunHeader::n_outputs

/// y[c][r] = sum over k of W[r][k] * x[c][k] (+ bias[r]) (+ y[c][r]), every matrix kernel. Column c of x is at
/// x + c * x_stride words: float[n_k], or for the integer kernels an ActLayout(n_k). y[c] is at y + c * y_stride floats.
/// x must be readable up to n_k rounded up to 4. W may be a part of a matrix: whole panels from one on, with y and bias
/// moved along by its first row. A part is under 16 GiB.
/// With a GLU constant (matvec alone): y = f(W x) * (W_up x), both of one type and shape, no bias and no add.
struct MatmulPush {
    ADDR w;
    ADDR w_up;           // second matrix of a GLU, else 0
    ADDR x;
    ADDR y;
    ADDR bias;           // float[n_rows], or 0
    ADDR run;            // RunHeader, or 0 with QUERN_COLS_PUSHED
    uint panel_stride;   // words from panel to panel
    uint n_rows, n_k;
    uint x_stride;       // words
    uint y_stride;       // floats
    uint n_cols;
    uint cols_from;      // QUERN_COLS_...
    uint add;            // 1: y +=
};

/// y[i] = row tokens[i] of W, for the tokens of the run that lie in [first_row, first_row + n_rows); rows of other tokens are
/// left alone, so that a matrix cut into parts takes one dispatch a part.
struct EmbedPush {
    ADDR w;              // panel of row first_row
    ADDR y;              // row i at y + i * y_stride floats, n_k floats each; y_stride a multiple of 4
    ADDR run;
    uint panel_stride;   // words
    uint first_row;      // a multiple of 16
    uint n_rows, n_k;
    uint y_stride;       // floats
    uint pad;
};

/// Columns of n floats at x + c * x_stride words to ActLayout(n) at q + c * q_stride words (views.h; n a multiple of 32).
/// fine: a second ActLayout(n) behind the first, with what the first rounding lost.
struct QuantizePush {
    ADDR x;
    ADDR q;
    ADDR run;            // as in MatmulPush
    uint n;
    uint x_stride, q_stride;  // words
    uint n_cols;
    uint cols_from;
    uint fine;           // 0 or 1
};

#ifdef __cplusplus
static_assert(sizeof(MatmulPush) == 80 && sizeof(EmbedPush) == 48 && sizeof(QuantizePush) == 48);
}  // namespace quern::vulkan
#undef ADDR
#endif
#endif
