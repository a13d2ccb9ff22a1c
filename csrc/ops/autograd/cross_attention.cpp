#include "ops/cross_attention.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>

namespace vpd::ops {
namespace {
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

std::optional<Tensor> defined(const Tensor& t) {
  return t.defined() ? std::optional<Tensor>(t) : std::nullopt;
}

class CrossAttention : public torch::autograd::Function<CrossAttention> {
 public:
  static variable_list forward(AutogradContext* ctx, const Tensor& q, const Tensor& k,
                               const Tensor& v, const std::optional<Tensor>& mask, int64_t heads,
                               double scale, bool per_head) {
    at::AutoDispatchBelowADInplaceOrView below;
    // The gradient of an unused output stays undefined instead of becoming a matrix of zeros.
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({q, k, v, mask.value_or(Tensor())});
    ctx->saved_data["heads"] = heads;
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["per_head"] = per_head;
    auto [out, map] = cross_attention(q, k, v, mask, heads, scale, per_head);
    return {out, map};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    Tensor grad_q, grad_k, grad_v;
    if (grads[0].defined() || grads[1].defined()) {
      std::tie(grad_q, grad_k, grad_v) = cross_attention_backward(
          defined(grads[0]), defined(grads[1]), saved[0], saved[1], saved[2], defined(saved[3]),
          ctx->saved_data["heads"].toInt(), ctx->saved_data["scale"].toDouble(),
          ctx->saved_data["per_head"].toBool(),
          {ctx->needs_input_grad(0), ctx->needs_input_grad(1), ctx->needs_input_grad(2)});
    }
    return {grad_q, grad_k, grad_v, Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

std::tuple<Tensor, Tensor> cross_attention_autograd(const Tensor& q, const Tensor& k,
                                                    const Tensor& v,
                                                    const std::optional<Tensor>& mask,
                                                    int64_t heads, double scale, bool per_head) {
  const auto outputs = CrossAttention::apply(q, k, v, mask, heads, scale, per_head);
  return {outputs[0], outputs[1]};
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, Autograd, m) {
  m.impl("cross_attention", cross_attention_autograd);
  m.impl("cross_attention_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace vpd::ops
