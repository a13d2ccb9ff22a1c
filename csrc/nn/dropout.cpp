#include "nn/dropout.h"

#include <ATen/ops/empty.h>

namespace vpd::nn {

at::Tensor dropout2d(const at::Tensor& x, double probability, const Mode& mode) {
  if (!mode.training || probability == 0) return x;
  const double kept = 1 - probability;
  at::Tensor factor = at::empty({x.size(0), x.size(1), 1, 1}, x.options());
  factor.bernoulli_(kept, mode.generator).div_(kept);
  return x * factor;
}

}  // namespace vpd::nn
