#include "ops/sdpa.h"

#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include "ops/flash_attention.h"

namespace vpd::ops {

at::Tensor sdpa(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                const std::optional<at::Tensor>& mask, bool causal, double scale) {
  const bool differentiated =
      at::GradMode::is_enabled() && (q.requires_grad() || k.requires_grad() || v.requires_grad());
  // PyTorch's own knows autocast, and inputs of several types under it.
  const bool one_type = q.scalar_type() == k.scalar_type() && q.scalar_type() == v.scalar_type() &&
                        !(q.scalar_type() == at::kFloat && q.device().is_cpu() &&
                          at::autocast::is_autocast_enabled(at::kCPU));
  if (!mask && !causal && one_type && flash_attention_pays(q, k, scale, differentiated)) {
    return std::get<0>(flash_attention(q, k, v, scale));
  }
  if (!differentiated || !q.device().is_cpu() || !at::isReducedFloatingType(q.scalar_type())) {
    return at::scaled_dot_product_attention(q, k, v, mask, /*dropout_p=*/0.0, causal, scale);
  }
  // Autocast would narrow the inputs again.
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::DispatchKey::AutocastCPU);
  const auto wide = [](const at::Tensor& x) { return x.to(at::kFloat); };
  const bool additive = mask && mask->is_floating_point();
  return at::scaled_dot_product_attention(wide(q), wide(k), wide(v), additive ? wide(*mask) : mask,
                                          /*dropout_p=*/0.0, causal, scale)
      .to(q.scalar_type());
}

}  // namespace vpd::ops
