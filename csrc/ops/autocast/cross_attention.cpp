// Under autocast q, k and v go to the autocast type, as PyTorch's own attention does: a query from
// a linear layer and keys from a float32 cache then agree. Probabilities are computed in float
// inside the kernel.
#include "ops/cross_attention.h"

#include <ATen/autocast_mode.h>

namespace vpd::ops {
namespace {
using at::Tensor;

template <c10::DispatchKey key, c10::DeviceType device>
std::tuple<Tensor, Tensor> cross_attention_autocast(const Tensor& q, const Tensor& k,
                                                    const Tensor& v,
                                                    const std::optional<Tensor>& mask,
                                                    int64_t heads, double scale, bool per_head) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(key);
  const at::ScalarType type = at::autocast::get_autocast_dtype(device);
  return cross_attention(at::autocast::cached_cast(type, q, device),
                         at::autocast::cached_cast(type, k, device),
                         at::autocast::cached_cast(type, v, device), mask, heads, scale, per_head);
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, AutocastCPU, m) {
  m.impl("cross_attention",
         cross_attention_autocast<c10::DispatchKey::AutocastCPU, c10::DeviceType::CPU>);
}

TORCH_LIBRARY_IMPL(vpd, AutocastCUDA, m) {
  m.impl("cross_attention",
         cross_attention_autocast<c10::DispatchKey::AutocastCUDA, c10::DeviceType::CUDA>);
}

}  // namespace vpd::ops
