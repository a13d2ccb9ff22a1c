#include "ops/flash_attention.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include "core/check.h"
#include "ops/cpu/cpu_level.h"

namespace vpd::ops {
using at::Tensor;

void check_flash_attention(const Tensor& q, const Tensor& k, const Tensor& v, double scale) {
  constexpr const char* op = "flash_attention";
  VPD_CHECK(q.dim() == 4 && q.sym_size(3) >= 1, op, ": q must be [B, heads, M, D], got ",
            q.sym_sizes());
  VPD_CHECK(q.scalar_type() == at::kBFloat16 || q.scalar_type() == at::kFloat, op,
            ": q must be BFloat16 or Float, got ", q.scalar_type());
  const auto check_tokens = [&](const char* name, const Tensor& t) {
    VPD_CHECK(t.dim() == 4 && t.sym_size(0) == q.sym_size(0) && t.sym_size(1) == q.sym_size(1) &&
                  t.sym_size(2) >= 1 && t.sym_size(3) == q.sym_size(3),
              op, ": ", name, " must be [", q.sym_size(0), ", ", q.sym_size(1), ", N, ",
              q.sym_size(3), "] with N >= 1, got ", t.sym_sizes());
    VPD_CHECK(t.scalar_type() == q.scalar_type() && t.device() == q.device(), op, ": ", name,
              " must be ", q.scalar_type(), " on ", q.device(), " like q, got ", t.scalar_type(),
              " on ", t.device());
  };
  check_tokens("k", k);
  check_tokens("v", v);
  VPD_CHECK(v.sym_size(2) == k.sym_size(2), op, ": v must have the ", k.sym_size(2),
            " tokens of k, got ", v.sym_size(2));
  VPD_CHECK(scale > 0, op, ": scale must be positive, got ", scale);
}

bool flash_attention_pays(const Tensor& q, double scale) {
  // Wider heads in float32 are a few percent slower: their keys no longer fit the second cache.
  const bool taken = (q.scalar_type() == at::kFloat && q.sym_size(3) <= 256) ||
                     (q.scalar_type() == at::kBFloat16 && !cpu::has_tiles());
  return taken && q.device().is_cpu() && scale > 0 && cpu::cpu_level() >= cpu::Level::kAVX512BF16;
}

Tensor flash_attention(const Tensor& q, const Tensor& k, const Tensor& v, double scale) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("vpd::flash_attention", "")
                             .typed<decltype(flash_attention)>();
  return op.call(q, k, v, scale);
}

TORCH_LIBRARY_FRAGMENT(vpd, m) {
  m.def("flash_attention(Tensor q, Tensor k, Tensor v, float scale) -> Tensor");
}

TORCH_LIBRARY_IMPL(vpd, Autograd, m) {
  m.impl("flash_attention", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace vpd::ops
