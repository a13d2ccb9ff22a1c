#include "ops/conv2d.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/convolution_backward.h>
#include <torch/csrc/autograd/custom_function.h>

#include "ops/packed.h"

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

class ConstantTail : public torch::autograd::Function<ConstantTail> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& tail,
                        const Tensor& weight, int64_t padding) {
    const Tensor joined = at::cat({x, tail}, 1);
    ctx->save_for_backward({joined, weight});
    ctx->saved_data["sizes"] = x.sizes();
    ctx->saved_data["padding"] = padding;
    return at::conv2d(joined, weight, std::nullopt, 1, padding);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &joined = saved[0], &weight = saved[1], &grad = grads[0];
    const std::vector<int64_t> padding(2, ctx->saved_data["padding"].toInt());
    const auto backward = [&](const Tensor& x, const Tensor& own, bool input) {
      return at::convolution_backward(grad, x, own, std::nullopt, {1, 1}, padding, {1, 1},
                                      /*transposed=*/false, {0, 0}, /*groups=*/1,
                                      {input, !input, false});
    };
    variable_list result(4);
    const auto sizes = ctx->saved_data["sizes"].toIntVector();
    const Tensor x = grad.new_empty({1}).expand(sizes);  // asked for its size alone
    result[0] = std::get<0>(backward(x, weight.narrow(1, 0, sizes[1]), /*input=*/true));
    if (ctx->needs_input_grad(2)) {
      result[2] = std::get<1>(backward(joined, weight, /*input=*/false));
    }
    return result;
  }
};

}  // namespace

Tensor conv2d(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
              int64_t stride, int64_t padding, const Tensor& backward) {
  if (weight.is_mkldnn()) return packed_conv2d(x, weight, bias, stride, padding, backward);
  const bool frozen = !weight.requires_grad() && !(bias && bias->requires_grad());
  if (frozen && x.requires_grad() && at::GradMode::is_enabled()) {
    return FrozenConv2d::apply(x, weight, bias, stride, padding);
  }
  return at::conv2d(x, weight, bias, stride, padding);
}

Tensor conv2d_joined(const Tensor& x, const Tensor& tail, const Tensor& weight, int64_t padding,
                     const Tensor& backward) {
  if (!weight.is_mkldnn() && x.requires_grad() && !tail.requires_grad() &&
      at::GradMode::is_enabled()) {
    return ConstantTail::apply(x, tail, weight.to(x.scalar_type()), padding);
  }
  return conv2d(at::cat({x, tail}, 1), weight, std::nullopt, /*stride=*/1, padding, backward);
}

}  // namespace vpd::ops
