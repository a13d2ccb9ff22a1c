#pragma once
#include <ATen/core/Tensor.h>

#include <tuple>

#include "ops/cpu/active_tokens.h"

namespace vpd::ops::cpu {

// Whether cross_attention_flash can do it here: on AVX-512 with bfloat16 products, for bfloat16 or
// float32, where every image has a token to attend to and few enough of them.
bool flash_takes(const at::Tensor& q, const ActiveTokens& active, double scale);

// Cross-attention with its map (ops/cross_attention.h) by the products of flash attention; q, k and
// v with rows whose values lie side by side, `map` of zeros where tokens are left out.
void cross_attention_flash(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const ActiveTokens& active, int64_t heads, double scale, bool per_head,
                           const at::Tensor& out, const at::Tensor& map);

}  // namespace vpd::ops::cpu
