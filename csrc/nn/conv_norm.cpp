#include "nn/conv_norm.h"

#include <cmath>

namespace vpd::nn {

ConvNorm::ConvNorm(Scope scope, int64_t in, int64_t out, int64_t kernel)
    : conv_(scope / "conv", in, out,
            {.kernel = kernel,
             .padding = kernel / 2,
             .bias = false,
             .init = Init::normal(std::sqrt(2.0 / static_cast<double>(out * kernel * kernel)))}),
      bn_(scope / "bn", out) {}

Tensor ConvNorm::operator()(const Params& p, const Tensor& x, const Mode& mode) const {
  return bn_.relu(p, conv_(p, x), mode.training, mode.processes());
}

}  // namespace vpd::nn
