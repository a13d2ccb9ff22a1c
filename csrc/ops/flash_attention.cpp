#include "ops/flash_attention.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <utility>

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

void check_flash_attention_backward(const Tensor& grad, const Tensor& q, const Tensor& k,
                                    const Tensor& v, const Tensor& out, const Tensor& logsumexp,
                                    double scale) {
  constexpr const char* op = "flash_attention_backward";
  check_flash_attention(q, k, v, scale);
  for (const auto& [name, t] : {std::pair("grad", &grad), std::pair("out", &out)}) {
    VPD_CHECK(t->sym_sizes() == q.sym_sizes() && t->scalar_type() == q.scalar_type(), op, ": ",
              name, " must be ", q.scalar_type(), " ", q.sym_sizes(), " like q, got ",
              t->scalar_type(), " ", t->sym_sizes());
  }
  VPD_CHECK(
      logsumexp.scalar_type() == at::kFloat && logsumexp.sym_sizes() == q.sym_sizes().slice(0, 3),
      op, ": logsumexp must be Float ", q.sym_sizes().slice(0, 3), ", got ",
      logsumexp.scalar_type(), " ", logsumexp.sym_sizes());
}

bool flash_attention_pays(const Tensor& q, const Tensor& k, double scale, bool differentiated) {
  if (!q.device().is_cpu() || scale <= 0 || cpu::cpu_level() < cpu::Level::kAVX512BF16) {
    return false;
  }
  if (q.scalar_type() == at::kBFloat16) return !cpu::has_tiles();
  // Float32 gains less, and only while the keys of a head fit the second cache and are enough to be
  // worth laying out (benchmarks/ops.py).
  const auto keys = k.sym_size(2), width = q.sym_size(3);
  if (q.scalar_type() != at::kFloat) return false;
  return differentiated ? keys >= 512 && width <= 64 : width <= 64 || (width <= 256 && keys >= 128);
}

std::tuple<Tensor, Tensor> flash_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                                           double scale) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("vpd::flash_attention", "")
                             .typed<decltype(flash_attention)>();
  return op.call(q, k, v, scale);
}

std::tuple<Tensor, Tensor, Tensor> flash_attention_backward(const Tensor& grad, const Tensor& q,
                                                            const Tensor& k, const Tensor& v,
                                                            const Tensor& out,
                                                            const Tensor& logsumexp, double scale,
                                                            std::array<bool, 3> wanted) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("vpd::flash_attention_backward", "")
                             .typed<decltype(flash_attention_backward)>();
  return op.call(grad, q, k, v, out, logsumexp, scale, wanted);
}

TORCH_LIBRARY_FRAGMENT(vpd, m) {
  m.def(
      "flash_attention(Tensor q, Tensor k, Tensor v, float scale) -> "
      "(Tensor out, Tensor logsumexp)");
  m.def(
      "flash_attention_backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor out, "
      "Tensor logsumexp, float scale, bool[3] wanted) -> "
      "(Tensor grad_q, Tensor grad_k, Tensor grad_v)");
}

}  // namespace vpd::ops
