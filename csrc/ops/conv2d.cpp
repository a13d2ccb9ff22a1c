#include "ops/conv2d.h"

#include <ATen/ops/conv2d.h>
#include <ATen/ops/convolution_backward.h>
#include <torch/csrc/autograd/custom_function.h>

namespace vpd::ops {
namespace {
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class FrozenConv2d : public torch::autograd::Function<FrozenConv2d> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                        const std::optional<Tensor>& bias, int64_t stride, int64_t padding) {
    ctx->save_for_backward({weight});
    ctx->saved_data["sizes"] = x.sizes();
    ctx->saved_data["dtype"] = x.scalar_type();
    ctx->saved_data["stride"] = stride;
    ctx->saved_data["padding"] = padding;
    return at::conv2d(x, weight, bias, stride, padding);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const Tensor& grad = grads[0];
    const Tensor weight = ctx->get_saved_variables()[0].to(grad.scalar_type());
    // Of x, its gradient asks for the size alone.
    const Tensor x = grad.new_empty({1}).expand(ctx->saved_data["sizes"].toIntVector());
    const std::vector<int64_t> stride(2, ctx->saved_data["stride"].toInt());
    const std::vector<int64_t> padding(2, ctx->saved_data["padding"].toInt());
    const auto found = at::convolution_backward(grad, x, weight, std::nullopt, stride, padding,
                                                {1, 1}, /*transposed=*/false, {0, 0},
                                                /*groups=*/1, {true, false, false});
    const auto dtype = ctx->saved_data["dtype"].toScalarType();
    return {std::get<0>(found).to(dtype), Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace

Tensor conv2d(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
              int64_t stride, int64_t padding) {
  const bool frozen = !weight.requires_grad() && !(bias && bias->requires_grad());
  if (frozen && x.requires_grad() && at::GradMode::is_enabled()) {
    return FrozenConv2d::apply(x, weight, bias, stride, padding);
  }
  return at::conv2d(x, weight, bias, stride, padding);
}

}  // namespace vpd::ops
