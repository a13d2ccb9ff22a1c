#include "models/text_adapter.h"

#include <ATen/ops/gelu.h>

#include "core/check.h"

namespace vpd::models {

namespace {

// Small enough that training starts from the text encoder's own states.
constexpr double kGammaStart = 1e-4;

int64_t checked(int64_t dim) {
  VPD_CHECK(dim > 0, "TextAdapter: dim must be positive, got ", dim);
  return dim;
}

}  // namespace

TextAdapter::TextAdapter(int64_t dim)
    : dim_(checked(dim)),
      gamma_(Scope(table_).declare("gamma", {dim}, Init::constant(kGammaStart))),
      in_(Scope(table_) / "fc" / 0, dim, dim),
      out_(Scope(table_) / "fc" / 2, dim, dim) {}

Tensor TextAdapter::forward(const Params& p, const Tensor& states) const {
  VPD_CHECK(states.dim() >= 1 && states.size(-1) == dim_ && states.is_floating_point(),
            "text_adapter: states must be floating point [..., ", dim_, "], got ", states.dtype(),
            " ", states.sizes());
  const Tensor x = states.to(p[gamma_].scalar_type());
  return x + p[gamma_] * out_(p, at::gelu(in_(p, x)));
}

}  // namespace vpd::models
