// SPDX-License-Identifier: Apache-2.0
// The list of tensor types. To add one: write formats/quant/<type>.h, then its include and its name here
// (and its GGUF id in DType).
#pragma once

#include "formats/quant/bf16.h"
#include "formats/quant/f16.h"
#include "formats/quant/f32.h"
#include "formats/quant/mxfp4.h"
#include "formats/quant/q2_k.h"
#include "formats/quant/q3_k.h"
#include "formats/quant/q4_0.h"
#include "formats/quant/q4_1.h"
#include "formats/quant/q4_k.h"
#include "formats/quant/q5_0.h"
#include "formats/quant/q5_1.h"
#include "formats/quant/q5_k.h"
#include "formats/quant/q6_k.h"
#include "formats/quant/q8_0.h"

namespace quern::quant {

template <class... Types>
struct TypeList {};

using AllTypes = TypeList<F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, MXFP4>;

}  // namespace quern::quant
