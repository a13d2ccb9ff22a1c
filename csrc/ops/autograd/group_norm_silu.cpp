#include "ops/group_norm_silu.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>

namespace vpd::ops {
namespace {
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class GroupNormSilu : public torch::autograd::Function<GroupNormSilu> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                        const Tensor& bias, int64_t groups, double eps, bool silu) {
    at::AutoDispatchBelowADInplaceOrView below;
    auto [y, mean, rstd] = group_norm_silu_forward(x, weight, bias, groups, eps, silu);
    ctx->save_for_backward({x, weight, bias, mean, rstd});
    ctx->saved_data["groups"] = groups;
    ctx->saved_data["silu"] = silu;
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    auto [grad_x, grad_weight, grad_bias] = group_norm_silu_backward(
        grads[0], saved[0], saved[1], saved[2], saved[3], saved[4],
        ctx->saved_data["groups"].toInt(), ctx->saved_data["silu"].toBool(),
        {ctx->needs_input_grad(0), ctx->needs_input_grad(1), ctx->needs_input_grad(2)});
    return {grad_x, grad_weight, grad_bias, Tensor(), Tensor(), Tensor()};
  }
};

Tensor group_norm_silu_autograd(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                int64_t groups, double eps, bool silu) {
  return GroupNormSilu::apply(x, weight, bias, groups, eps, silu);
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, Autograd, m) {
  m.impl("group_norm_silu", group_norm_silu_autograd);
  m.impl("group_norm_silu_forward", torch::autograd::autogradNotImplementedFallback());
  m.impl("group_norm_silu_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace vpd::ops
