#include "ops/deformable_attention.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>

namespace vpd::ops {
namespace {
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class DeformableAttention : public torch::autograd::Function<DeformableAttention> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& value, const Tensor& shapes,
                        const Tensor& locations, const Tensor& weights) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({value, shapes, locations, weights});
    return deformable_attention(value, shapes, locations, weights);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    auto [value, locations, weights] =
        deformable_attention_backward(grads[0], saved[0], saved[1], saved[2], saved[3]);
    return {value, Tensor(), locations, weights};
  }
};

Tensor deformable_attention_autograd(const Tensor& value, const Tensor& shapes,
                                     const Tensor& locations, const Tensor& weights) {
  return DeformableAttention::apply(value, shapes, locations, weights);
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, Autograd, m) {
  m.impl("deformable_attention", deformable_attention_autograd);
  m.impl("deformable_attention_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace vpd::ops
