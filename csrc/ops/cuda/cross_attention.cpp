#include "ops/cross_attention.h"

#include <ATen/ops/empty.h>

#include "ops/cuda/cross_attention.h"
#include "ops/cuda/glue.h"

namespace vpd::ops::cuda {
namespace {
using at::Tensor;

std::tuple<Tensor, Tensor> cross_attention_cuda(const Tensor& q_, const Tensor& k_,
                                                const Tensor& v_,
                                                const std::optional<Tensor>& mask_, int64_t heads,
                                                double scale, bool per_head) {
  check_cross_attention("cross_attention", q_, k_, v_, mask_, heads);
  const c10::cuda::CUDAGuard guard(q_.device());
  CrossAttentionCall call{.type = type_of("cross_attention", q_),
                          .batch = q_.size(0),
                          .queries = q_.size(1),
                          .tokens = k_.size(1),
                          .heads = heads,
                          .width = q_.size(2) / heads,
                          .scale = static_cast<float>(scale),
                          .per_head = per_head};
  if (q_.numel() == 0 || !cross_attention_takes(call)) {
    return cross_attention_composite(q_, k_, v_, mask_, heads, scale, per_head);
  }
  const Tensor q = aligned(q_.contiguous()), k = aligned(k_.contiguous());
  const Tensor v = aligned(v_.contiguous());
  const Tensor mask = mask_ ? mask_->contiguous() : Tensor();
  c10::DimVector plane{call.batch, call.tokens, call.queries};
  if (per_head) plane.insert(plane.begin() + 1, heads);
  Tensor out = at::empty(q.sizes(), q.options()), map = at::empty(plane, q.options());
  Tensor sums;
  call.q = q.const_data_ptr();
  call.k = k.const_data_ptr();
  call.v = v.const_data_ptr();
  call.mask = mask_ ? mask.const_data_ptr<bool>() : nullptr;
  call.out = out.mutable_data_ptr();
  call.map = map.mutable_data_ptr();
  if (cross_attention_sums(call)) {
    sums = at::empty(plane, q.options().dtype(at::kFloat));
    call.sums = sums.mutable_data_ptr<float>();
  }
  C10_CUDA_CHECK(launch_cross_attention(call, c10::cuda::getCurrentCUDAStream()));
  return {out, map};
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, CUDA, m) { m.impl("cross_attention", cross_attention_cuda); }

}  // namespace vpd::ops::cuda
