#include "ops/flash_attention.h"

#include <ATen/ops/empty.h>

namespace vpd::ops {
namespace {
using at::Tensor;

Tensor heads_last(const Tensor& t) {
  return at::empty_symint({t.sym_size(0), t.sym_size(2), t.sym_size(1), t.sym_size(3)}, t.options())
      .transpose(1, 2);
}

std::tuple<Tensor, Tensor> flash_attention_meta(const Tensor& q, const Tensor& k, const Tensor& v,
                                                double scale) {
  check_flash_attention(q, k, v, scale);
  return {heads_last(q),
          at::empty_symint(q.sym_sizes().slice(0, 3), q.options().dtype(at::kFloat))};
}

std::tuple<Tensor, Tensor, Tensor> flash_attention_backward_meta(
    const Tensor& grad, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
    const Tensor& logsumexp, double scale, std::array<bool, 3> wanted) {
  check_flash_attention_backward(grad, q, k, v, out, logsumexp, scale);
  const auto like = [](bool want, const Tensor& t) { return want ? heads_last(t) : Tensor(); };
  return {like(wanted[0], q), like(wanted[1], k), like(wanted[2], v)};
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, Meta, m) {
  m.impl("flash_attention", flash_attention_meta);
  m.impl("flash_attention_backward", flash_attention_backward_meta);
}

}  // namespace vpd::ops
