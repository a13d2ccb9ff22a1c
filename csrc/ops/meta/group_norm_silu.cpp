#include "ops/group_norm_silu.h"

#include <ATen/OpMathType.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

namespace vpd::ops {
namespace {
using at::Tensor;

std::tuple<Tensor, Tensor, Tensor> forward_meta(const Tensor& x, const Tensor& weight,
                                                const Tensor& bias, int64_t groups, double eps,
                                                bool silu) {
  (void)silu;
  check_group_norm_silu(x, weight, bias, groups, eps);
  const auto statistic = [&] {
    return at::empty_symint({x.sym_size(0), groups},
                            x.options().dtype(at::toOpMathType(x.scalar_type())));
  };
  Tensor y = at::empty_symint(x.sym_sizes(), x.options(), x.suggest_memory_format());
  return {std::move(y), statistic(), statistic()};
}

std::tuple<Tensor, Tensor, Tensor> backward_meta(const Tensor& grad, const Tensor& x,
                                                 const Tensor& weight, const Tensor& bias,
                                                 const Tensor& mean, const Tensor& rstd,
                                                 int64_t groups, bool silu,
                                                 std::array<bool, 3> wanted) {
  (void)silu;
  check_group_norm_silu_backward(grad, x, weight, bias, mean, rstd, groups);
  return {wanted[0] ? at::empty_symint(x.sym_sizes(), x.options(), x.suggest_memory_format())
                    : Tensor(),
          wanted[1] ? at::empty_like(weight) : Tensor(),
          wanted[2] ? at::empty_like(bias) : Tensor()};
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, Meta, m) {
  m.impl("group_norm_silu_forward", forward_meta);
  m.impl("group_norm_silu_backward", backward_meta);
}

}  // namespace vpd::ops
