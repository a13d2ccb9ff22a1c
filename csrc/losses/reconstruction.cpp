#include "losses/reconstruction.h"

#include <ATen/ops/diff.h>

#include "core/check.h"

namespace vpd::losses {

ReconstructionLoss reconstruction_loss(const at::Tensor& reconstruction, const at::Tensor& image,
                                       const at::Tensor& mean, const at::Tensor& logvar,
                                       double kl_weight) {
  VPD_CHECK(
      reconstruction.dim() == 4 && reconstruction.is_floating_point() &&
          reconstruction.size(2) > 1 && reconstruction.size(3) > 1,
      "reconstruction_loss: reconstruction must be floating point [B, C, H, W] with H, W > 1, got ",
      reconstruction.dtype(), " ", reconstruction.sizes());
  VPD_CHECK(image.sizes() == reconstruction.sizes() && image.is_floating_point(),
            "reconstruction_loss: image must be floating point ", reconstruction.sizes(), ", got ",
            image.dtype(), " ", image.sizes());
  VPD_CHECK(
      mean.sizes() == logvar.sizes() && mean.is_floating_point() && logvar.is_floating_point(),
      "reconstruction_loss: mean and logvar must be floating point of one shape, got ",
      mean.dtype(), " ", mean.sizes(), " and ", logvar.dtype(), " ", logvar.sizes());
  // Differences are linear: those of the error are the error of the differences.
  const at::Tensor error = widened(reconstruction) - widened(image);
  const at::Tensor m = widened(mean), v = widened(logvar);
  ReconstructionLoss loss;
  loss.pixels = error.abs().mean();
  loss.edges = error.diff(1, -1).abs().mean() + error.diff(1, -2).abs().mean();
  loss.kl = 0.5 * (m.square() + v.exp() - 1.0 - v).mean();
  loss.total = loss.pixels + loss.edges + kl_weight * loss.kl;
  return loss;
}

}  // namespace vpd::losses
