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

// What the gradient of a convolution's input is computed from: with stride 1 the packed weight of
// the convolution that it is, turned round in space and between input and output; else a plain
// copy.
at::Tensor conv2d_weight_backward(const at::Tensor& weight, int64_t stride, int64_t padding);

// The following give gradients of their inputs from packed weights alone, by `backward`: the packed
// transposed weight, and conv2d_weight_backward. Where it is undefined and a gradient would be
// needed they throw std::invalid_argument.

// x W^T + b, with a plain or a packed weight.
//   x [..., in] -> [..., out]
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight,
                  const std::optional<at::Tensor>& bias, const at::Tensor& backward = {});

// [B, in, H, W] -> [B, out, H', W'] with a packed weight.
at::Tensor packed_conv2d(const at::Tensor& x, const at::Tensor& weight,
                         const std::optional<at::Tensor>& bias, int64_t stride, int64_t padding,
                         const at::Tensor& backward = {});

}  // namespace vpd::ops
