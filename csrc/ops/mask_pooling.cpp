#include "ops/mask_pooling.h"

#include <ATen/OpMathType.h>
#include <ATen/TensorOperators.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/sigmoid.h>
#include <torch/csrc/autograd/custom_function.h>

#include "core/check.h"

namespace vpd::ops {
namespace {
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr double kTiny = 1e-8;  // the original's

at::ScalarType wide_type(const Tensor& x) { return at::toOpMathType(x.scalar_type()); }

// What each pixel counts for each mask: [B, Q, H * W], each row sums to 1.
Tensor shares(const Tensor& masks, bool soft, at::ScalarType type) {
  const Tensor logits = masks.flatten(2);
  const Tensor w = soft ? at::sigmoid(logits.to(type)) : logits.gt(0).to(type);
  return w / (w.sum(-1, /*keepdim=*/true) + kTiny);
}

class MaskPooling : public torch::autograd::Function<MaskPooling> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& masks, bool soft) {
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    ctx->save_for_backward({masks});
    ctx->saved_data["soft"] = soft;
    ctx->saved_data["type"] = x.scalar_type();
    const at::ScalarType type = wide_type(x);
    return shares(masks, soft, type).bmm(x.flatten(2).to(type).transpose(1, 2));
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    const Tensor masks = ctx->get_saved_variables()[0];
    const Tensor w = shares(masks, ctx->saved_data["soft"].toBool(), grads[0].scalar_type());
    const Tensor grad = w.transpose(1, 2).bmm(grads[0]);  // [B, H * W, C]
    return {grad.transpose(1, 2)
                .unflatten(2, masks.sizes().slice(2))
                .to(ctx->saved_data["type"].toScalarType()),
            Tensor(), Tensor()};
  }
};

}  // namespace

Tensor mask_pooling(const Tensor& x, const Tensor& masks, bool soft) {
  VPD_CHECK(x.dim() == 4 && x.is_floating_point(),
            "mask_pooling: x must be floating point [B, C, H, W], got ", x.dtype(), " ", x.sizes());
  VPD_CHECK(masks.dim() == 4 && masks.is_floating_point() && masks.size(0) == x.size(0) &&
                masks.sizes().slice(2) == x.sizes().slice(2),
            "mask_pooling: masks must be floating point [", x.size(0), ", Q, ", x.size(2), ", ",
            x.size(3), "], got ", masks.dtype(), " ", masks.sizes());
  return MaskPooling::apply(x, masks.detach(), soft);
}

}  // namespace vpd::ops
