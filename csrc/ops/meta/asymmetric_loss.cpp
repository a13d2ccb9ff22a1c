#include "ops/asymmetric_loss.h"

#include <ATen/OpMathType.h>
#include <ATen/ops/empty.h>

namespace vpd::ops {
namespace {
using at::Tensor;

Tensor asymmetric_loss_meta(const Tensor& logits, const Tensor& target, double gamma_neg,
                            double gamma_pos, double clip, double eps, bool /*full_grad*/,
                            bool reduce) {
  check_asymmetric_loss("asymmetric_loss", logits, target, gamma_neg, gamma_pos, clip, eps);
  const auto options = logits.options().dtype(at::toOpMathType(logits.scalar_type()));
  return reduce ? at::empty({}, options) : at::empty_symint(logits.sym_sizes(), options);
}

Tensor asymmetric_loss_backward_meta(const Tensor& grad, const Tensor& logits, const Tensor& target,
                                     double gamma_neg, double gamma_pos, double clip, double eps,
                                     bool /*full_grad*/) {
  check_asymmetric_loss_backward(grad, logits, target, gamma_neg, gamma_pos, clip, eps);
  return at::empty_symint(logits.sym_sizes(), logits.options());
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, Meta, m) {
  m.impl("asymmetric_loss", asymmetric_loss_meta);
  m.impl("asymmetric_loss_backward", asymmetric_loss_backward_meta);
}

}  // namespace vpd::ops
