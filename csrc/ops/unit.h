#pragma once
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/linalg_vector_norm.h>

namespace vpd::ops {

// x / |x| over the last dimension. A vector of zeros stays one.
inline at::Tensor unit(const at::Tensor& x) {
  constexpr double kSmallest = 1e-12;
  return x / at::linalg_vector_norm(x, 2, -1, /*keepdim=*/true).clamp_min(kSmallest);
}

}  // namespace vpd::ops
