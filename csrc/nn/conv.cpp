#include "nn/conv.h"

#include "core/check.h"
#include "nn/layout.h"
#include "ops/conv2d.h"
#include "ops/packed.h"

namespace vpd::nn {

Conv2d::Conv2d(Scope scope, int64_t in, int64_t out, Conv2dOptions options) : options_(options) {
  const int64_t kernel = options.kernel;
  const Init standard = Init::fan_in(in * kernel * kernel);
  weight_ = scope.weight({out, in, kernel, kernel}, options.init.value_or(standard),
                         WeightUse::convolution(options.stride, options.padding));
  if (options.bias) {
    bias_ = scope.declare("bias", {out}, options.init ? Init::zeros() : standard);
  }
}

Tensor Conv2d::operator()(const Params& p, const Tensor& x) const {
  const std::optional<Tensor> bias = bias_ ? std::optional<Tensor>(p[*bias_]) : std::nullopt;
  return ops::conv2d(x, p[weight_], bias, options_.stride, options_.padding, p.backward(weight_));
}

Tensor Conv2d::operator()(const Params& p, const Tensor& x, const Tensor& tail) const {
  VPD_CHECK(options_.stride == 1 && !bias_, "Conv2d: joined inputs need stride 1 and no bias");
  return ops::conv2d_joined(x, tail, p[weight_], options_.padding, p.backward(weight_));
}

Conv1x1::Conv1x1(Scope scope, int64_t in, int64_t out, std::optional<Init> init)
    : weight_(scope.weight({out, in, 1, 1}, init.value_or(Init::fan_in(in)), WeightUse::linear())),
      bias_(scope.declare("bias", {out}, init ? Init::zeros() : Init::fan_in(in))) {}

Tensor Conv1x1::operator()(const Params& p, const Tensor& x) const {
  return to_image(on_tokens(p, to_tokens(x)), x.size(2), x.size(3));
}

Tensor Conv1x1::on_tokens(const Params& p, const Tensor& tokens) const {
  const Tensor& weight = p[weight_];
  return ops::linear(tokens, weight.is_mkldnn() ? weight : weight.flatten(1), p[bias_],
                     p.backward(weight_));
}

}  // namespace vpd::nn
