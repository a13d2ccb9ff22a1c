// Compositions of ATen ops, for devices without a kernel of their own.
#include "ops/asymmetric_loss.h"

#include <ATen/OpMathType.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/where.h>

namespace vpd::ops {
namespace {
using at::Tensor;

constexpr double kTiny = 1e-30;  // keeps 0 / 0 away where the numerator is 0

// In the accumulation type. u is what the log is taken of, w the focusing weight.
struct Terms {
  Tensor positive, p, rest, q, u, w;
};

Terms terms_of(const Tensor& logits, const Tensor& target, double gamma_neg, double gamma_pos,
               double clip) {
  const Tensor x = logits.to(at::toOpMathType(logits.scalar_type()));
  const Tensor positive = target.ne(0), p = at::sigmoid(x), rest = at::sigmoid(-x);
  const Tensor q = (p - clip).clamp_min(0);
  return {positive,
          p,
          rest,
          q,
          at::where(positive, p, (rest + clip).clamp_max(1)),
          at::where(positive, rest.pow(gamma_pos), q.pow(gamma_neg))};
}

Tensor asymmetric_loss_composite(const Tensor& logits, const Tensor& target, double gamma_neg,
                                 double gamma_pos, double clip, double eps, bool /*full_grad*/,
                                 bool reduce) {
  check_asymmetric_loss("asymmetric_loss", logits, target, gamma_neg, gamma_pos, clip, eps);
  const Terms t = terms_of(logits, target, gamma_neg, gamma_pos, clip);
  const Tensor values = -(t.w * t.u.clamp_min(eps).log());
  return reduce ? values.sum() : values;
}

Tensor asymmetric_loss_backward_composite(const Tensor& grad, const Tensor& logits,
                                          const Tensor& target, double gamma_neg, double gamma_pos,
                                          double clip, double eps, bool full_grad) {
  check_asymmetric_loss_backward(grad, logits, target, gamma_neg, gamma_pos, clip, eps);
  const Terms t = terms_of(logits, target, gamma_neg, gamma_pos, clip);
  const Tensor slope = t.p * t.rest;
  // d log u, 0 where a clamp holds u
  const Tensor moves = t.u.ge(eps).logical_and(t.positive.logical_or(t.p.gt(clip)));
  Tensor d = at::where(t.positive, t.rest, -slope / t.u.clamp_min(eps)) * moves;
  if (full_grad) {  // + log u d log w
    const Tensor dw =
        at::where(t.positive, t.p * -gamma_pos, slope / t.q.clamp_min(kTiny) * gamma_neg);
    d = d + t.u.clamp_min(eps).log() * dw;
  }
  return (-grad.to(d.scalar_type()) * t.w * d).to(logits.scalar_type());
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, CompositeExplicitAutograd, m) {
  m.impl("asymmetric_loss", asymmetric_loss_composite);
  m.impl("asymmetric_loss_backward", asymmetric_loss_backward_composite);
}

}  // namespace vpd::ops
