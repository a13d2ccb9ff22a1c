#include "ops/flash_attention.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>

namespace vpd::ops {
namespace {
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class FlashAttention : public torch::autograd::Function<FlashAttention> {
 public:
  static variable_list forward(AutogradContext* ctx, const Tensor& q, const Tensor& k,
                               const Tensor& v, double scale) {
    at::AutoDispatchBelowADInplaceOrView below;
    auto [out, logsumexp] = flash_attention(q, k, v, scale);
    ctx->save_for_backward({q, k, v, out, logsumexp});
    ctx->saved_data["scale"] = scale;
    ctx->mark_non_differentiable({logsumexp});
    return {out, logsumexp};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    auto [grad_q, grad_k, grad_v] = flash_attention_backward(
        grads[0], saved[0], saved[1], saved[2], saved[3], saved[4],
        ctx->saved_data["scale"].toDouble(),
        {ctx->needs_input_grad(0), ctx->needs_input_grad(1), ctx->needs_input_grad(2)});
    return {grad_q, grad_k, grad_v, Tensor()};
  }
};

std::tuple<Tensor, Tensor> flash_attention_autograd(const Tensor& q, const Tensor& k,
                                                    const Tensor& v, double scale) {
  const auto outputs = FlashAttention::apply(q, k, v, scale);
  return {outputs[0], outputs[1]};
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, Autograd, m) {
  m.impl("flash_attention", flash_attention_autograd);
  m.impl("flash_attention_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace vpd::ops
