#include "ops/asymmetric_loss.h"

#include <ATen/OpMathType.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "ops/cuda/asymmetric_loss.h"
#include "ops/cuda/glue.h"

namespace vpd::ops::cuda {
namespace {
using at::Tensor;

TargetType target_type_of(const Tensor& target) {
  switch (target.scalar_type()) {
    case at::kBool:
    case at::kByte:
      return TargetType::kByte;
    case at::kFloat:
      return TargetType::kFloat;
    case at::kDouble:
      return TargetType::kDouble;
    case at::kHalf:
      return TargetType::kHalf;
    case at::kBFloat16:
      return TargetType::kBFloat16;
    default:
      fail("asymmetric_loss: target must be Bool, Byte, Float, Double, Half or BFloat16, got ",
           target.scalar_type());
  }
}

// Of dense tensors, which must outlive it.
Labelled labelled(const Tensor& logits, const Tensor& target) {
  return {.type = type_of("asymmetric_loss", logits),
          .logits = logits.const_data_ptr(),
          .target_type = target_type_of(target),
          .target = target.const_data_ptr(),
          .count = logits.numel()};
}

Tensor asymmetric_loss_cuda(const Tensor& logits_, const Tensor& target_, double gamma_neg,
                            double gamma_pos, double clip, double eps, bool /*full_grad*/,
                            bool reduce) {
  check_asymmetric_loss("asymmetric_loss", logits_, target_, gamma_neg, gamma_pos, clip, eps);
  const c10::cuda::CUDAGuard guard(logits_.device());
  const auto options = logits_.options().dtype(at::toOpMathType(logits_.scalar_type()));
  if (logits_.numel() == 0) {
    return reduce ? at::zeros({}, options) : at::empty(logits_.sizes(), options);
  }
  const Tensor logits = logits_.contiguous(), target = target_.contiguous();
  const AsymmetricLoss loss{gamma_neg, gamma_pos, clip, eps};
  const auto blocks = static_cast<int64_t>(asymmetric_loss_blocks(logits.numel()));
  Tensor out = reduce ? at::empty({blocks}, options) : at::empty(logits.sizes(), options);
  void* to = out.mutable_data_ptr();
  C10_CUDA_CHECK(launch_asymmetric_loss(labelled(logits, target), loss, reduce ? nullptr : to,
                                        reduce ? to : nullptr, c10::cuda::getCurrentCUDAStream()));
  return reduce ? out.sum() : out;
}

Tensor asymmetric_loss_backward_cuda(const Tensor& grad_, const Tensor& logits_,
                                     const Tensor& target_, double gamma_neg, double gamma_pos,
                                     double clip, double eps, bool full_grad) {
  check_asymmetric_loss_backward(grad_, logits_, target_, gamma_neg, gamma_pos, clip, eps);
  const c10::cuda::CUDAGuard guard(logits_.device());
  Tensor grad_logits = at::empty(logits_.sizes(), logits_.options());
  if (grad_logits.numel() == 0) {
    return grad_logits;
  }
  const Tensor logits = logits_.contiguous(), target = target_.contiguous();
  const auto options = logits.options().dtype(at::toOpMathType(logits.scalar_type()));
  const Tensor grad = grad_.to(options).contiguous();  // a scalar may come from the CPU
  const AsymmetricLoss loss{gamma_neg, gamma_pos, clip, eps};
  C10_CUDA_CHECK(launch_asymmetric_loss_backward(
      labelled(logits, target), loss, full_grad, grad.const_data_ptr(), grad.dim() == 0,
      grad_logits.mutable_data_ptr(), c10::cuda::getCurrentCUDAStream()));
  return grad_logits;
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, CUDA, m) {
  m.impl("asymmetric_loss", asymmetric_loss_cuda);
  m.impl("asymmetric_loss_backward", asymmetric_loss_backward_cuda);
}

}  // namespace vpd::ops::cuda
