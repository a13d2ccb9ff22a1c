#include "ops/flash_attention.h"

#include <ATen/ops/empty.h>

namespace vpd::ops {
namespace {
using at::Tensor;

Tensor flash_attention_meta(const Tensor& q, const Tensor& k, const Tensor& v, double scale) {
  check_flash_attention(q, k, v, scale);
  return at::empty_symint({q.sym_size(0), q.sym_size(2), q.sym_size(1), q.sym_size(3)}, q.options())
      .transpose(1, 2);
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, Meta, m) { m.impl("flash_attention", flash_attention_meta); }

}  // namespace vpd::ops
