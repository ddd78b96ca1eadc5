// SPDX-License-Identifier: Apache-2.0
// The layout of a page (kernels/views.h, KvHeadView and KvQuantLayout), in bytes of one head, from FORMAT, D (head_dim) and
// PAGE (tokens).
const uint kF32 = 0, kF16 = 1, kQ8 = 2, kQ4 = 3;
const bool QUANT = FORMAT >= kQ8;
const uint PITCH = (D + 15u) / 16u * 16u;
const uint V_EXACT = PAGE * D * (FORMAT == kF32 ? 4u : 2u);
const uint K_SCALE = FORMAT == kQ4 ? (D + 3u) / 4u * 64u : D * 32u;
const uint K_ZERO = K_SCALE + PITCH;
const uint V_CODES = (K_SCALE + PITCH * 2u + 63u) / 64u * 64u;
const uint V_SCALE = V_CODES + PITCH * (FORMAT == kQ4 ? 16u : 32u);
const uint V_MIN = V_SCALE + 64u;
const uint HEAD_EXACT = PAGE * (D + PITCH) * (FORMAT == kF32 ? 4u : 2u);
const uint HEAD_QUANT = ((FORMAT == kQ4 ? V_MIN + 64u : V_MIN) + 63u) / 64u * 64u;
const uint HEAD = QUANT ? HEAD_QUANT : HEAD_EXACT;
