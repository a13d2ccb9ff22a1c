#include "ops/geglu.h"

#include <ATen/ops/empty.h>

namespace vpd::ops {
namespace {
using at::Tensor;

Tensor geglu_meta(const Tensor& x) {
  check_geglu(x);
  c10::SymDimVector sizes(x.sym_sizes());
  sizes.back() = sizes.back() / 2;
  return at::empty_symint(sizes, x.options());
}

Tensor geglu_backward_meta(const Tensor& grad, const Tensor& x) {
  check_geglu_backward(grad, x);
  return at::empty_symint(x.sym_sizes(), x.options());
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, Meta, m) {
  m.impl("geglu", geglu_meta);
  m.impl("geglu_backward", geglu_backward_meta);
}

}  // namespace vpd::ops
