#include "ops/cross_attention.h"

#include <ATen/ops/empty.h>

namespace vpd::ops {
namespace {
using at::Tensor;

std::tuple<Tensor, Tensor> cross_attention_meta(const Tensor& q, const Tensor& k, const Tensor& v,
                                                const std::optional<Tensor>& mask, int64_t heads,
                                                double scale, bool per_head) {
  (void)scale;
  check_cross_attention("cross_attention", q, k, v, mask, heads);
  c10::SymDimVector map_sizes{q.sym_size(0), k.sym_size(1), q.sym_size(1)};
  if (per_head) {
    map_sizes.insert(map_sizes.begin() + 1, c10::SymInt(heads));
  }
  return {at::empty_symint(q.sym_sizes(), q.options()), at::empty_symint(map_sizes, q.options())};
}

std::tuple<Tensor, Tensor, Tensor> cross_attention_backward_meta(
    const std::optional<Tensor>& grad_out, const std::optional<Tensor>& grad_map, const Tensor& q,
    const Tensor& k, const Tensor& v, const std::optional<Tensor>& mask, int64_t heads,
    double scale, bool per_head, std::array<bool, 3> wanted) {
  (void)scale;
  check_cross_attention_backward(grad_out, grad_map, q, k, v, mask, heads, per_head);
  const auto like = [](bool want, const Tensor& t) {
    return want ? at::empty_symint(t.sym_sizes(), t.options()) : Tensor();
  };
  return {like(wanted[0], q), like(wanted[1], k), like(wanted[2], v)};
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, Meta, m) {
  m.impl("cross_attention", cross_attention_meta);
  m.impl("cross_attention_backward", cross_attention_backward_meta);
}

}  // namespace vpd::ops
