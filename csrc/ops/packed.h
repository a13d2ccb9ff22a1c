#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

namespace vpd::ops {

// Weights as oneDNN's CPU kernels read them; opaque tensors (is_mkldnn()). Without packing PyTorch
// lays them out anew at each call.
//   weight [out, in]; float32, or bfloat16 on processors with AVX-512
at::Tensor packed_linear_weight(const at::Tensor& weight);
//   weight [out, in, k, k]
at::Tensor packed_conv2d_weight(const at::Tensor& weight, int64_t stride, int64_t padding);
bool can_pack(const at::Tensor& weight);

// x W^T + b, with a plain or a packed weight. A packed one gives no gradient, nor takes one: throws
// std::invalid_argument where it would have to.
//   x [..., in] -> [..., out]
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight,
                  const std::optional<at::Tensor>& bias);

// [B, in, H, W] -> [B, out, H', W'] with a packed weight.
at::Tensor packed_conv2d(const at::Tensor& x, const at::Tensor& weight,
                         const std::optional<at::Tensor>& bias, int64_t stride, int64_t padding);

}  // namespace vpd::ops
