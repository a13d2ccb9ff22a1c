#include "losses/epsilon.h"

#include "core/check.h"

namespace vpd::losses {

at::Tensor epsilon_loss(const at::Tensor& prediction, const at::Tensor& noise,
                        const at::Tensor& alpha_bar, double cap, Reduction reduction) {
  VPD_CHECK(prediction.dim() >= 2 && prediction.is_floating_point(),
            "epsilon_loss: prediction must be floating point [B, ...], got ", prediction.dtype(),
            " ", prediction.sizes());
  VPD_CHECK(noise.sizes() == prediction.sizes() && noise.is_floating_point(),
            "epsilon_loss: noise must be floating point ", prediction.sizes(), ", got ",
            noise.dtype(), " ", noise.sizes());
  VPD_CHECK(alpha_bar.dim() == 1 && alpha_bar.size(0) == prediction.size(0) &&
                alpha_bar.is_floating_point(),
            "epsilon_loss: alpha_bar must be floating point [", prediction.size(0), "], got ",
            alpha_bar.dtype(), " ", alpha_bar.sizes());
  VPD_CHECK(cap >= 1, "epsilon_loss: cap must be at least 1, got ", cap);
  const at::Tensor error = (widened(prediction) - noise).square().flatten(1).mean(1);  // [B]
  return reduce(error * alpha_bar.reciprocal().clamp_max(cap).to(error.scalar_type()), reduction);
}

}  // namespace vpd::losses
