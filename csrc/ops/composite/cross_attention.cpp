// Compositions of ATen ops, for devices and types without a kernel of their own: one head at a
// time, so that the probabilities of one head are the largest thing held.
#include "ops/cross_attention.h"

#include <ATen/OpMathType.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

namespace vpd::ops {
namespace {
using at::Tensor;

// Probabilities of one head. q [B, M, D], k [B, N, D] -> [B, M, N] in the accumulation type
Tensor probabilities(const Tensor& q, const Tensor& k, const std::optional<Tensor>& mask,
                     double scale) {
  const at::ScalarType type = at::toOpMathType(q.scalar_type());
  Tensor scores = q.matmul(k.transpose(1, 2)).to(type).mul_(scale);
  if (mask) {
    scores.masked_fill_(mask->logical_not().unsqueeze(1), -INFINITY);
  }
  return scores.softmax(-1);
}

Tensor head(const Tensor& t, int64_t h, int64_t heads) {
  const int64_t width = t.size(2) / heads;
  return t.narrow(2, h * width, width);
}

}  // namespace

std::tuple<Tensor, Tensor> cross_attention_composite(const Tensor& q, const Tensor& k,
                                                     const Tensor& v,
                                                     const std::optional<Tensor>& mask,
                                                     int64_t heads, double scale, bool per_head) {
  check_cross_attention("cross_attention", q, k, v, mask, heads);
  const int64_t batch = q.size(0), pixels = q.size(1), tokens = k.size(1);
  Tensor out = at::empty(q.sizes(), q.options());
  Tensor map = per_head ? at::empty({batch, heads, tokens, pixels}, q.options())
                        : at::zeros({batch, tokens, pixels},
                                    q.options().dtype(at::toOpMathType(q.scalar_type())));
  for (int64_t h = 0; h < heads; ++h) {
    const Tensor p = probabilities(head(q, h, heads), head(k, h, heads), mask, scale);
    head(out, h, heads).copy_(p.to(v.scalar_type()).matmul(head(v, h, heads)));
    if (per_head) {
      map.select(1, h).copy_(p.transpose(1, 2));
    } else {
      map.add_(p.transpose(1, 2), 1.0 / static_cast<double>(heads));
    }
  }
  return {out, map.to(q.scalar_type())};
}

namespace {

std::tuple<Tensor, Tensor, Tensor> cross_attention_backward_composite(
    const std::optional<Tensor>& grad_out, const std::optional<Tensor>& grad_map, const Tensor& q,
    const Tensor& k, const Tensor& v, const std::optional<Tensor>& mask, int64_t heads,
    double scale, bool per_head, std::array<bool, 3> wanted) {
  check_cross_attention_backward(grad_out, grad_map, q, k, v, mask, heads, per_head);
  const at::ScalarType type = at::toOpMathType(q.scalar_type());
  const auto like = [](bool want, const Tensor& t) {
    return want ? at::zeros(t.sizes(), t.options()) : Tensor();
  };
  Tensor grad_q = like(wanted[0], q), grad_k = like(wanted[1], k), grad_v = like(wanted[2], v);
  if (!grad_out && !grad_map) {
    return {grad_q, grad_k, grad_v};
  }
  for (int64_t h = 0; h < heads; ++h) {
    const Tensor qh = head(q, h, heads), kh = head(k, h, heads), vh = head(v, h, heads);
    const Tensor p = probabilities(qh, kh, mask, scale);  // [B, M, N]
    Tensor dp;                                            // gradient of p
    if (grad_out) {
      const Tensor grad_head = head(*grad_out, h, heads);
      if (wanted[2]) {
        head(grad_v, h, heads).copy_(p.transpose(1, 2).to(v.scalar_type()).matmul(grad_head));
      }
      dp = grad_head.matmul(vh.transpose(1, 2)).to(type);
    }
    if (grad_map) {
      const Tensor from_map = per_head ? grad_map->select(1, h).to(type)
                                       : grad_map->to(type) / static_cast<double>(heads);
      dp = dp.defined() ? dp + from_map.transpose(1, 2) : from_map.transpose(1, 2);
    }
    const Tensor ds = (p * (dp - (dp * p).sum(-1, /*keepdim=*/true)) * scale).to(q.scalar_type());
    if (wanted[0]) {
      head(grad_q, h, heads).copy_(ds.matmul(kh));
    }
    if (wanted[1]) {
      head(grad_k, h, heads).copy_(ds.transpose(1, 2).matmul(qh));
    }
  }
  return {grad_q, grad_k, grad_v};
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, CompositeExplicitAutograd, m) {
  m.impl("cross_attention", cross_attention_composite);
  m.impl("cross_attention_backward", cross_attention_backward_composite);
}

}  // namespace vpd::ops
