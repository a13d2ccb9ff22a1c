#include "ops/asymmetric_loss.h"

#include <cmath>

#include "core/check.h"

namespace vpd::ops {
using at::Tensor;

void check_asymmetric_loss(const char* op, const Tensor& logits, const Tensor& target,
                           double gamma_neg, double gamma_pos, double clip, double eps) {
  VPD_CHECK(logits.dim() == 2 && logits.is_floating_point(), op,
            ": logits must be floating point [B, K], got ", logits.scalar_type(), " ",
            logits.sym_sizes());
  VPD_CHECK(target.sym_sizes() == logits.sym_sizes() &&
                (target.is_floating_point() || target.scalar_type() == at::kBool ||
                 target.scalar_type() == at::kByte),
            op, ": target must be Bool, Byte or floating point ", logits.sym_sizes(),
            " like logits, got ", target.scalar_type(), " ", target.sym_sizes());
  VPD_CHECK(target.device() == logits.device(), op, ": target must be on ", logits.device(),
            " like logits, got ", target.device());
  const auto is_power = [](double gamma) { return gamma >= 0 && std::isfinite(gamma); };
  VPD_CHECK(is_power(gamma_neg) && is_power(gamma_pos), op,
            ": gamma_neg and gamma_pos must be finite and not negative, got ", gamma_neg, " and ",
            gamma_pos);
  VPD_CHECK(clip >= 0 && clip < 1, op, ": clip must be in [0, 1), got ", clip);
  VPD_CHECK(eps > 0 && eps < 1, op, ": eps must be in (0, 1), got ", eps);
}

void check_asymmetric_loss_backward(const Tensor& grad, const Tensor& logits, const Tensor& target,
                                    double gamma_neg, double gamma_pos, double clip, double eps) {
  constexpr const char* op = "asymmetric_loss_backward";
  check_asymmetric_loss(op, logits, target, gamma_neg, gamma_pos, clip, eps);
  VPD_CHECK(grad.dim() == 0 || grad.sym_sizes() == logits.sym_sizes(), op,
            ": grad must be a scalar or like logits, expected [] or ", logits.sym_sizes(), ", got ",
            grad.sym_sizes());
}

Tensor asymmetric_loss(const Tensor& logits, const Tensor& target, double gamma_neg,
                       double gamma_pos, double clip, double eps, bool full_grad, bool reduce) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("vpd::asymmetric_loss", "")
                             .typed<decltype(asymmetric_loss)>();
  return op.call(logits, target, gamma_neg, gamma_pos, clip, eps, full_grad, reduce);
}

Tensor asymmetric_loss_backward(const Tensor& grad, const Tensor& logits, const Tensor& target,
                                double gamma_neg, double gamma_pos, double clip, double eps,
                                bool full_grad) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("vpd::asymmetric_loss_backward", "")
                             .typed<decltype(asymmetric_loss_backward)>();
  return op.call(grad, logits, target, gamma_neg, gamma_pos, clip, eps, full_grad);
}

TORCH_LIBRARY_FRAGMENT(vpd, m) {
  m.def(
      "asymmetric_loss(Tensor logits, Tensor target, float gamma_neg, float gamma_pos, "
      "float clip, float eps, bool full_grad, bool reduce) -> Tensor");
  m.def(
      "asymmetric_loss_backward(Tensor grad, Tensor logits, Tensor target, float gamma_neg, "
      "float gamma_pos, float clip, float eps, bool full_grad) -> Tensor");
}

}  // namespace vpd::ops
