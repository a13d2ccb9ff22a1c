#include "ops/geglu.h"

#include "core/check.h"

namespace vpd::ops {
using at::Tensor;

void check_geglu(const Tensor& x) {
  VPD_CHECK(x.dim() >= 1 && x.sym_size(-1) % 2 == 0,
            "geglu: x must be [..., 2 D], value and gate side by side, got ", x.sym_sizes());
  VPD_CHECK(x.is_floating_point(), "geglu: x must be floating point, got ", x.scalar_type());
}

void check_geglu_backward(const Tensor& grad, const Tensor& x) {
  check_geglu(x);
  c10::SymDimVector expected(x.sym_sizes());
  expected.back() = expected.back() / 2;
  VPD_CHECK(grad.sym_sizes() == c10::SymIntArrayRef(expected),
            "geglu_backward: grad must be [..., D], expected ", c10::SymIntArrayRef(expected),
            ", got ", grad.sym_sizes());
}

Tensor geglu(const Tensor& x) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("vpd::geglu", "").typed<decltype(geglu)>();
  return op.call(x);
}

Tensor geglu_backward(const Tensor& grad, const Tensor& x) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("vpd::geglu_backward", "")
                             .typed<decltype(geglu_backward)>();
  return op.call(grad, x);
}

TORCH_LIBRARY_FRAGMENT(vpd, m) {
  m.def("geglu(Tensor x) -> Tensor");
  m.def("geglu_backward(Tensor grad, Tensor x) -> Tensor");
}

}  // namespace vpd::ops
