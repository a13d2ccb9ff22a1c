#include "nn/mlp.h"

#include "nn/init.h"

namespace vpd::nn {

MLP::MLP(Scope scope, const std::vector<int64_t>& widths) {
  for (size_t i = 0; i + 1 < widths.size(); ++i) {
    layers_.emplace_back(scope / "layers" / static_cast<int64_t>(i), widths[i], widths[i + 1]);
  }
}

Tensor MLP::operator()(const Params& p, const Tensor& x) const {
  Tensor result = layers_[0](p, x);
  for (size_t i = 1; i < layers_.size(); ++i) result = layers_[i](p, result.relu_());
  return result;
}

ReLUFeedForward::ReLUFeedForward(Scope scope, int64_t channels, int64_t hidden)
    : linear1_(scope / "linear1", channels, hidden, /*bias=*/true, xavier(channels, hidden),
               Init::fan_in(channels)),
      linear2_(scope / "linear2", hidden, channels, /*bias=*/true, xavier(hidden, channels),
               Init::fan_in(hidden)) {}

Tensor ReLUFeedForward::operator()(const Params& p, const Tensor& x) const {
  return linear2_(p, linear1_(p, x).relu_());
}

}  // namespace vpd::nn
