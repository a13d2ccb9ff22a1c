#include "nn/conv.h"

#include <ATen/ops/linear.h>

#include "nn/layout.h"
#include "ops/conv2d.h"

namespace vpd::nn {

Conv2d::Conv2d(Scope scope, int64_t in, int64_t out, Conv2dOptions options)
    : options_(options),
      weight_(scope.declare(
          "weight", {out, in, options.kernel, options.kernel},
          options.zero_init ? Init::zeros() : Init::fan_in(in * options.kernel * options.kernel))) {
  if (options.bias) {
    bias_ = scope.declare(
        "bias", {out},
        options.zero_init ? Init::zeros() : Init::fan_in(in * options.kernel * options.kernel));
  }
}

Tensor Conv2d::operator()(const Params& p, const Tensor& x) const {
  const std::optional<Tensor> bias = bias_ ? std::optional<Tensor>(p[*bias_]) : std::nullopt;
  return ops::conv2d(x, p[weight_], bias, options_.stride, options_.padding);
}

Conv1x1::Conv1x1(Scope scope, int64_t in, int64_t out, bool zero_init)
    : weight_(
          scope.declare("weight", {out, in, 1, 1}, zero_init ? Init::zeros() : Init::fan_in(in))),
      bias_(scope.declare("bias", {out}, zero_init ? Init::zeros() : Init::fan_in(in))) {}

Tensor Conv1x1::operator()(const Params& p, const Tensor& x) const {
  return to_image(on_tokens(p, to_tokens(x)), x.size(2), x.size(3));
}

Tensor Conv1x1::on_tokens(const Params& p, const Tensor& tokens) const {
  return at::linear(tokens, p[weight_].flatten(1), p[bias_]);
}

}  // namespace vpd::nn
