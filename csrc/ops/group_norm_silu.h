#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <tuple>

namespace vpd::ops {

// Group normalisation over groups of channels, followed by SiLU when `silu`.
//   x [B, C, H, W] (any memory format; channels_last is fastest), weight and bias [C] -> y like x,
//   same memory format.
// Statistics are accumulated in float (double for double). weight and bias may be wider than x
// (autocast).
at::Tensor group_norm_silu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                           int64_t groups, double eps, bool silu);

// The same with what the gradient needs: y, and mean and 1 / standard deviation [B, groups] in the
// accumulation type.
std::tuple<at::Tensor, at::Tensor, at::Tensor> group_norm_silu_forward(const at::Tensor& x,
                                                                       const at::Tensor& weight,
                                                                       const at::Tensor& bias,
                                                                       int64_t groups, double eps,
                                                                       bool silu);

// grad [B, C, H, W] -> gradients of x, weight and bias; those not in `wanted` are undefined.
std::tuple<at::Tensor, at::Tensor, at::Tensor> group_norm_silu_backward(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
    const at::Tensor& mean, const at::Tensor& rstd, int64_t groups, bool silu,
    std::array<bool, 3> wanted);

// Shared by the kernels of all devices; throw std::invalid_argument.
void check_group_norm_silu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                           int64_t groups, double eps);
void check_group_norm_silu_backward(const at::Tensor& grad, const at::Tensor& x,
                                    const at::Tensor& weight, const at::Tensor& bias,
                                    const at::Tensor& mean, const at::Tensor& rstd, int64_t groups);

}  // namespace vpd::ops
