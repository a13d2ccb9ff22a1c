#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

namespace vpd::ops {

// at::conv2d that keeps nothing of x for its backward where weight and bias do not train: PyTorch
// keeps x for a weight gradient that nobody asks for. A packed kernel is taken too, with what its
// backward pass reads (ops/packed.h).
at::Tensor conv2d(const at::Tensor& x, const at::Tensor& weight,
                  const std::optional<at::Tensor>& bias, int64_t stride, int64_t padding,
                  const at::Tensor& backward = {});

// conv2d of x and tail side by side ([B, C1, H, W] and [B, C2, H, W]), stride 1, without bias.
// Where tail has no gradient none is computed for it.
at::Tensor conv2d_joined(const at::Tensor& x, const at::Tensor& tail, const at::Tensor& weight,
                         int64_t padding, const at::Tensor& backward = {});

}  // namespace vpd::ops
