#include "nn/linear.h"

#include "ops/packed.h"

namespace vpd::nn {

Linear::Linear(Scope scope, int64_t in, int64_t out, bool bias)
    : Linear(scope, in, out, bias, Init::fan_in(in), Init::fan_in(in)) {}

Linear::Linear(Scope scope, int64_t in, int64_t out, bool bias, Init weight_init, Init bias_init)
    : weight_(scope.weight({out, in}, weight_init, WeightUse::linear())) {
  if (bias) bias_ = scope.declare("bias", {out}, bias_init);
}

Tensor Linear::operator()(const Params& p, const Tensor& x) const {
  return ops::linear(x, p[weight_], bias_ ? std::optional<Tensor>(p[*bias_]) : std::nullopt,
                     p.backward(weight_));
}

}  // namespace vpd::nn
