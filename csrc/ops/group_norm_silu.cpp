#include "ops/group_norm_silu.h"

#include "core/check.h"

namespace vpd::ops {
using at::Tensor;

void check_group_norm_silu(const Tensor& x, const Tensor& weight, const Tensor& bias,
                           int64_t groups, double eps) {
  VPD_CHECK(x.dim() == 4, "group_norm_silu: x must be [B, C, H, W], got ", x.sym_sizes());
  VPD_CHECK(x.is_floating_point(), "group_norm_silu: x must be floating point, got ",
            x.scalar_type());
  const c10::SymInt channels = x.sym_size(1);
  VPD_CHECK(groups >= 1 && channels >= 1 && channels % groups == 0,
            "group_norm_silu: groups must divide the ", channels, " channels of x, got ", groups);
  VPD_CHECK(eps >= 0, "group_norm_silu: eps must not be negative, got ", eps);
  const auto check_affine = [&](const char* name, const Tensor& t) {
    VPD_CHECK(t.dim() == 1 && t.sym_size(0) == channels, "group_norm_silu: ", name, " must be [",
              channels, "], one value for each channel of x, got ", t.sym_sizes());
    VPD_CHECK(t.is_floating_point(), "group_norm_silu: ", name, " must be floating point, got ",
              t.scalar_type());
    VPD_CHECK(t.device() == x.device(), "group_norm_silu: ", name, " must be on ", x.device(),
              " like x, got ", t.device());
  };
  check_affine("weight", weight);
  check_affine("bias", bias);
}

void check_group_norm_silu_backward(const Tensor& grad, const Tensor& x, const Tensor& weight,
                                    const Tensor& bias, const Tensor& mean, const Tensor& rstd,
                                    int64_t groups) {
  check_group_norm_silu(x, weight, bias, groups, 0);
  VPD_CHECK(grad.sym_sizes() == x.sym_sizes(),
            "group_norm_silu_backward: grad must be like x, expected ", x.sym_sizes(), ", got ",
            grad.sym_sizes());
  const auto check_statistic = [&](const char* name, const Tensor& t) {
    VPD_CHECK(t.dim() == 2 && t.sym_size(0) == x.sym_size(0) && t.sym_size(1) == groups,
              "group_norm_silu_backward: ", name, " must be [", x.sym_size(0), ", ", groups,
              "], got ", t.sym_sizes());
  };
  check_statistic("mean", mean);
  check_statistic("rstd", rstd);
}

Tensor group_norm_silu(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t groups,
                       double eps, bool silu) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("vpd::group_norm_silu", "")
                             .typed<decltype(group_norm_silu)>();
  return op.call(x, weight, bias, groups, eps, silu);
}

std::tuple<Tensor, Tensor, Tensor> group_norm_silu_forward(const Tensor& x, const Tensor& weight,
                                                           const Tensor& bias, int64_t groups,
                                                           double eps, bool silu) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("vpd::group_norm_silu_forward", "")
                             .typed<decltype(group_norm_silu_forward)>();
  return op.call(x, weight, bias, groups, eps, silu);
}

std::tuple<Tensor, Tensor, Tensor> group_norm_silu_backward(const Tensor& grad, const Tensor& x,
                                                            const Tensor& weight,
                                                            const Tensor& bias, const Tensor& mean,
                                                            const Tensor& rstd, int64_t groups,
                                                            bool silu, std::array<bool, 3> wanted) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("vpd::group_norm_silu_backward", "")
                             .typed<decltype(group_norm_silu_backward)>();
  return op.call(grad, x, weight, bias, mean, rstd, groups, silu, wanted);
}

TORCH_LIBRARY_FRAGMENT(vpd, m) {
  m.def(
      "group_norm_silu(Tensor x, Tensor weight, Tensor bias, int groups, float eps, bool silu) -> "
      "Tensor");
  m.def(
      "group_norm_silu_forward(Tensor x, Tensor weight, Tensor bias, int groups, float eps, "
      "bool silu) -> (Tensor y, Tensor mean, Tensor rstd)");
  m.def(
      "group_norm_silu_backward(Tensor grad, Tensor x, Tensor weight, Tensor bias, Tensor mean, "
      "Tensor rstd, int groups, bool silu, bool[3] wanted) -> "
      "(Tensor grad_x, Tensor grad_weight, Tensor grad_bias)");
}

}  // namespace vpd::ops
