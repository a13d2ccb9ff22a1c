#include "ops/deformable_attention.h"

#include <ATen/ops/empty.h>

namespace vpd::ops {
namespace {
using at::Tensor;

Tensor deformable_attention_meta(const Tensor& value, const Tensor& shapes, const Tensor& locations,
                                 const Tensor& weights) {
  check_deformable_attention(value, shapes, locations, weights);
  return at::empty_symint(
      {value.sym_size(0), locations.sym_size(1), value.sym_size(2) * value.sym_size(3)},
      value.options());
}

std::tuple<Tensor, Tensor, Tensor> deformable_attention_backward_meta(const Tensor& grad,
                                                                      const Tensor& value,
                                                                      const Tensor& shapes,
                                                                      const Tensor& locations,
                                                                      const Tensor& weights) {
  check_deformable_attention_backward(grad, value, shapes, locations, weights);
  const auto like = [](const Tensor& t) { return at::empty_symint(t.sym_sizes(), t.options()); };
  return {like(value), like(locations), like(weights)};
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, Meta, m) {
  m.impl("deformable_attention", deformable_attention_meta);
  m.impl("deformable_attention_backward", deformable_attention_backward_meta);
}

}  // namespace vpd::ops
