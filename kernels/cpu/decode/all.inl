// SPDX-License-Identifier: Apache-2.0
// Every decoder. To add a type: its file here, its line in isa/unit.inl.
#pragma once

#include "kernels/cpu/decode/mxfp4.inl"
#include "kernels/cpu/decode/q2_k.inl"
#include "kernels/cpu/decode/q3_k.inl"
#include "kernels/cpu/decode/q4_0.inl"
#include "kernels/cpu/decode/q4_1.inl"
#include "kernels/cpu/decode/q4_k.inl"
#include "kernels/cpu/decode/q5_0.inl"
#include "kernels/cpu/decode/q5_1.inl"
#include "kernels/cpu/decode/q5_k.inl"
#include "kernels/cpu/decode/q6_k.inl"
#include "kernels/cpu/decode/q8_0.inl"
