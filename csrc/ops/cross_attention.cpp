#include "ops/cross_attention.h"

#include "core/check.h"
#include "ops/sdpa.h"

namespace vpd::ops {
using at::Tensor;

void check_cross_attention(const char* op, const Tensor& q, const Tensor& k, const Tensor& v,
                           const std::optional<Tensor>& mask, int64_t heads) {
  VPD_CHECK(q.dim() == 3, op, ": q must be [B, M, heads * D], got ", q.sym_sizes());
  VPD_CHECK(q.is_floating_point(), op, ": q must be floating point, got ", q.scalar_type());
  VPD_CHECK(heads >= 1 && q.sym_size(2) >= 1 && q.sym_size(2) % heads == 0, op,
            ": heads must divide the ", q.sym_size(2), " columns of q, got ", heads);
  const auto check_tokens = [&](const char* name, const Tensor& t) {
    VPD_CHECK(t.dim() == 3 && t.sym_size(0) == q.sym_size(0) && t.sym_size(1) >= 1 &&
                  t.sym_size(2) == q.sym_size(2),
              op, ": ", name, " must be [", q.sym_size(0), ", N, ", q.sym_size(2),
              "] with N >= 1, got ", t.sym_sizes());
    VPD_CHECK(t.scalar_type() == q.scalar_type(), op, ": ", name, " must be ", q.scalar_type(),
              " like q, got ", t.scalar_type());
    VPD_CHECK(t.device() == q.device(), op, ": ", name, " must be on ", q.device(), " like q, got ",
              t.device());
  };
  check_tokens("k", k);
  check_tokens("v", v);
  VPD_CHECK(v.sym_size(1) == k.sym_size(1), op, ": v must have the ", k.sym_size(1),
            " tokens of k, got ", v.sym_size(1));
  if (mask) {
    VPD_CHECK(mask->scalar_type() == at::kBool && mask->dim() == 2 &&
                  mask->sym_size(0) == k.sym_size(0) && mask->sym_size(1) == k.sym_size(1),
              op, ": mask must be Bool [", k.sym_size(0), ", ", k.sym_size(1), "], got ",
              mask->scalar_type(), " ", mask->sym_sizes());
    VPD_CHECK(mask->device() == q.device(), op, ": mask must be on ", q.device(), " like q, got ",
              mask->device());
  }
}

void check_cross_attention_backward(const std::optional<Tensor>& grad_out,
                                    const std::optional<Tensor>& grad_map, const Tensor& q,
                                    const Tensor& k, const Tensor& v,
                                    const std::optional<Tensor>& mask, int64_t heads,
                                    bool per_head) {
  constexpr const char* op = "cross_attention_backward";
  check_cross_attention(op, q, k, v, mask, heads);
  VPD_CHECK(!grad_out || grad_out->sym_sizes() == q.sym_sizes(), op,
            ": grad_out must be like q, expected ", q.sym_sizes(), ", got ", grad_out->sym_sizes());
  c10::SymDimVector expected{q.sym_size(0), k.sym_size(1), q.sym_size(1)};
  if (per_head) {
    expected.insert(expected.begin() + 1, c10::SymInt(heads));
  }
  VPD_CHECK(!grad_map || grad_map->sym_sizes() == c10::SymIntArrayRef(expected), op,
            ": grad_map must be like map, expected ", c10::SymIntArrayRef(expected), ", got ",
            grad_map->sym_sizes());
}

std::tuple<Tensor, Tensor> cross_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                                           const std::optional<Tensor>& mask, int64_t heads,
                                           double scale, bool per_head) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("vpd::cross_attention", "")
                             .typed<decltype(cross_attention)>();
  return op.call(q, k, v, mask, heads, scale, per_head);
}

std::tuple<Tensor, Tensor, Tensor> cross_attention_backward(
    const std::optional<Tensor>& grad_out, const std::optional<Tensor>& grad_map, const Tensor& q,
    const Tensor& k, const Tensor& v, const std::optional<Tensor>& mask, int64_t heads,
    double scale, bool per_head, std::array<bool, 3> wanted) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("vpd::cross_attention_backward", "")
                             .typed<decltype(cross_attention_backward)>();
  return op.call(grad_out, grad_map, q, k, v, mask, heads, scale, per_head, wanted);
}

// A composition: PyTorch's fused kernels read the heads as strided views, so nothing is copied.
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v,
                 const std::optional<Tensor>& mask, int64_t heads, double scale) {
  check_cross_attention("attention", q, k, v, mask, heads);
  const auto split = [heads](const Tensor& t) {
    return t.unflatten_symint(2, {heads, t.sym_size(2) / heads})
        .transpose(1, 2);  // [B, heads, *, D]
  };
  std::optional<Tensor> broadcast;  // [B, 1, 1, N]
  if (mask) {
    broadcast = mask->unsqueeze(1).unsqueeze(1);
  }
  return sdpa(split(q), split(k), split(v), broadcast, /*causal=*/false, scale)
      .transpose(1, 2)
      .flatten(2);
}

TORCH_LIBRARY_FRAGMENT(vpd, m) {
  m.def(
      "cross_attention(Tensor q, Tensor k, Tensor v, Tensor? mask, int heads, float scale, "
      "bool per_head) -> (Tensor out, Tensor map)");
  m.def(
      "cross_attention_backward(Tensor? grad_out, Tensor? grad_map, Tensor q, Tensor k, Tensor v, "
      "Tensor? mask, int heads, float scale, bool per_head, bool[3] wanted) -> "
      "(Tensor grad_q, Tensor grad_k, Tensor grad_v)");
  m.def("attention(Tensor q, Tensor k, Tensor v, Tensor? mask, int heads, float scale) -> Tensor",
        attention);
}

}  // namespace vpd::ops
