#pragma once
#include <ATen/core/Tensor.h>

namespace vpd::ops {

// Asymmetric loss of multi-label classification (Ridnik et al. 2021, "Asymmetric Loss for
// Multi-Label Classification", equations 4 to 7). With p = sigmoid(logit), every logit gives
//   target 1: -(1 - p)^gamma_pos log p
//   target 0: -q^gamma_neg log(1 - q), q = max(p - clip, 0)
// where logs are taken of no less than eps. Whether the gradient also goes through the focusing
// weight, the power, is said by full_grad; without it the weight counts as a constant, as in the
// authors' training code.
//   logits [B, K], target [B, K] of zeros and ones: Bool, Byte or floating point
//   -> [] sum, or [B, K] without `reduce`; in float32, for double logits in double
// On the CPU other targets are refused; elsewhere all but zeros count as ones.
at::Tensor asymmetric_loss(const at::Tensor& logits, const at::Tensor& target, double gamma_neg,
                           double gamma_pos, double clip, double eps, bool full_grad, bool reduce);

// grad [] or [B, K] -> gradient of logits.
at::Tensor asymmetric_loss_backward(const at::Tensor& grad, const at::Tensor& logits,
                                    const at::Tensor& target, double gamma_neg, double gamma_pos,
                                    double clip, double eps, bool full_grad);

// Shared by the kernels of all devices; throw std::invalid_argument naming `op`.
void check_asymmetric_loss(const char* op, const at::Tensor& logits, const at::Tensor& target,
                           double gamma_neg, double gamma_pos, double clip, double eps);
void check_asymmetric_loss_backward(const at::Tensor& grad, const at::Tensor& logits,
                                    const at::Tensor& target, double gamma_neg, double gamma_pos,
                                    double clip, double eps);

}  // namespace vpd::ops
