// Compositions of ATen ops, for devices without a kernel of their own.
#include "ops/group_norm_silu.h"

#include <ATen/OpMathType.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/zeros.h>

namespace vpd::ops {
namespace {
using at::Tensor;

Tensor group_norm_silu_composite(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                 int64_t groups, double eps, bool silu) {
  return std::get<0>(group_norm_silu_forward(x, weight, bias, groups, eps, silu));
}

// weight [C] -> [1, groups, C / groups, 1] in the accumulation type
Tensor as_groups(const Tensor& t, int64_t groups, at::ScalarType type) {
  return t.to(type).view({1, groups, t.size(0) / groups, 1});
}

std::tuple<Tensor, Tensor, Tensor> forward_composite(const Tensor& x, const Tensor& weight,
                                                     const Tensor& bias, int64_t groups, double eps,
                                                     bool silu) {
  check_group_norm_silu(x, weight, bias, groups, eps);
  const at::ScalarType type = at::toOpMathType(x.scalar_type());
  const int64_t batch = x.size(0), channels = x.size(1), pixels = x.size(2) * x.size(3);
  if (x.numel() == 0) {
    const auto options = x.options().dtype(type);
    return {at::empty_like(x, x.suggest_memory_format()), at::zeros({batch, groups}, options),
            at::zeros({batch, groups}, options)};
  }
  const Tensor grouped = x.to(type).reshape({batch, groups, channels / groups, pixels});
  const Tensor mean = grouped.mean({2, 3}, /*keepdim=*/true);
  const Tensor centred = grouped - mean;
  const Tensor rstd = (centred.square().mean({2, 3}, /*keepdim=*/true) + eps).rsqrt();
  Tensor y = centred * rstd * as_groups(weight, groups, type) + as_groups(bias, groups, type);
  if (silu) {
    y = at::silu(y);
  }
  y = y.view(x.sizes()).to(x.scalar_type()).contiguous(x.suggest_memory_format());
  return {y, mean.view({batch, groups}), rstd.view({batch, groups})};
}

std::tuple<Tensor, Tensor, Tensor> backward_composite(const Tensor& grad, const Tensor& x,
                                                      const Tensor& weight, const Tensor& bias,
                                                      const Tensor& mean, const Tensor& rstd,
                                                      int64_t groups, bool silu,
                                                      std::array<bool, 3> wanted) {
  check_group_norm_silu_backward(grad, x, weight, bias, mean, rstd, groups);
  const at::ScalarType type = at::toOpMathType(x.scalar_type());
  const int64_t batch = x.size(0), channels = x.size(1), pixels = x.size(2) * x.size(3);
  const std::array<int64_t, 4> sizes{batch, groups, channels / groups, pixels};
  const Tensor scale = rstd.view({batch, groups, 1, 1});
  const Tensor w = as_groups(weight, groups, type);
  const Tensor xhat = (x.to(type).reshape(sizes) - mean.view({batch, groups, 1, 1})) * scale;
  Tensor dz = grad.to(type).reshape(sizes);
  if (silu) {
    const Tensor z = xhat * w + as_groups(bias, groups, type);
    const Tensor sigmoid = z.sigmoid();
    dz = dz * sigmoid * (1 + z * (1 - sigmoid));
  }
  Tensor grad_x, grad_weight, grad_bias;
  if (wanted[0]) {
    if (x.numel() == 0) {
      grad_x = at::empty_like(x, x.suggest_memory_format());
    } else {
      const Tensor dxhat = dz * w;
      grad_x = scale * (dxhat - dxhat.mean({2, 3}, /*keepdim=*/true) -
                        xhat * (dxhat * xhat).mean({2, 3}, /*keepdim=*/true));
      grad_x = grad_x.view(x.sizes()).to(x.scalar_type()).contiguous(x.suggest_memory_format());
    }
  }
  if (wanted[1]) {
    grad_weight = (dz * xhat).sum({0, 3}).view({channels}).to(weight.scalar_type());
  }
  if (wanted[2]) {
    grad_bias = dz.sum({0, 3}).view({channels}).to(bias.scalar_type());
  }
  return {grad_x, grad_weight, grad_bias};
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, CompositeExplicitAutograd, m) {
  m.impl("group_norm_silu", group_norm_silu_composite);
  m.impl("group_norm_silu_forward", forward_composite);
  m.impl("group_norm_silu_backward", backward_composite);
}

}  // namespace vpd::ops
