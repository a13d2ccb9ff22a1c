#pragma once
#include <ATen/core/Tensor.h>

namespace vpd::ops {

// x [..., 2 D] -> a * gelu(b) [..., D], where a, b = x.chunk(2, -1); exact (erf) GELU.
at::Tensor geglu(const at::Tensor& x);

// grad [..., D], x [..., 2 D] -> gradient of x.
at::Tensor geglu_backward(const at::Tensor& grad, const at::Tensor& x);

// Shared by the kernels of all devices; throw std::invalid_argument.
void check_geglu(const at::Tensor& x);
void check_geglu_backward(const at::Tensor& grad, const at::Tensor& x);

}  // namespace vpd::ops
