#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

namespace vpd::ops {

// at::conv2d that keeps nothing of x for its backward where weight and bias do not train: PyTorch
// keeps x for a weight gradient that nobody asks for.
at::Tensor conv2d(const at::Tensor& x, const at::Tensor& weight,
                  const std::optional<at::Tensor>& bias, int64_t stride, int64_t padding);

}  // namespace vpd::ops
