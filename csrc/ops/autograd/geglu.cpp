#include "ops/geglu.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>

namespace vpd::ops {
namespace {
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class Geglu : public torch::autograd::Function<Geglu> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({x});
    return geglu(x);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return {geglu_backward(grads[0], ctx->get_saved_variables()[0])};
  }
};

Tensor geglu_autograd(const Tensor& x) { return Geglu::apply(x); }

}  // namespace

TORCH_LIBRARY_IMPL(vpd, Autograd, m) {
  m.impl("geglu", geglu_autograd);
  m.impl("geglu_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace vpd::ops
