#include "ops/asymmetric_loss.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>

namespace vpd::ops {
namespace {
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class AsymmetricLoss : public torch::autograd::Function<AsymmetricLoss> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& logits, const Tensor& target,
                        double gamma_neg, double gamma_pos, double clip, double eps, bool full_grad,
                        bool reduce) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({logits, target});
    ctx->saved_data["gamma_neg"] = gamma_neg;
    ctx->saved_data["gamma_pos"] = gamma_pos;
    ctx->saved_data["clip"] = clip;
    ctx->saved_data["eps"] = eps;
    ctx->saved_data["full_grad"] = full_grad;
    return asymmetric_loss(logits, target, gamma_neg, gamma_pos, clip, eps, full_grad, reduce);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const auto number = [ctx](const char* name) { return ctx->saved_data[name].toDouble(); };
    variable_list found(8);  // one place for every argument; all but logits are constants
    if (ctx->needs_input_grad(0)) {
      found[0] = asymmetric_loss_backward(grads[0], saved[0], saved[1], number("gamma_neg"),
                                          number("gamma_pos"), number("clip"), number("eps"),
                                          ctx->saved_data["full_grad"].toBool());
    }
    return found;
  }
};

Tensor asymmetric_loss_autograd(const Tensor& logits, const Tensor& target, double gamma_neg,
                                double gamma_pos, double clip, double eps, bool full_grad,
                                bool reduce) {
  return AsymmetricLoss::apply(logits, target, gamma_neg, gamma_pos, clip, eps, full_grad, reduce);
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, Autograd, m) {
  m.impl("asymmetric_loss", asymmetric_loss_autograd);
  m.impl("asymmetric_loss_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace vpd::ops
