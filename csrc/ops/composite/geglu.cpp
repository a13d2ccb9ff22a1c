// Compositions of ATen ops, for devices without a kernel of their own.
#include "ops/geglu.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>

namespace vpd::ops {
namespace {
using at::Tensor;

Tensor geglu_composite(const Tensor& x) {
  check_geglu(x);
  const auto halves = x.chunk(2, -1);
  return halves[0] * at::gelu(halves[1]);
}

Tensor geglu_backward_composite(const Tensor& grad, const Tensor& x) {
  check_geglu_backward(grad, x);
  const auto halves = x.chunk(2, -1);
  return at::cat({grad * at::gelu(halves[1]), at::gelu_backward(grad * halves[0], halves[1])}, -1);
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, CompositeExplicitAutograd, m) {
  m.impl("geglu", geglu_composite);
  m.impl("geglu_backward", geglu_backward_composite);
}

}  // namespace vpd::ops
