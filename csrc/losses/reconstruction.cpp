#include "losses/reconstruction.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/diff.h>

#include "core/check.h"
#include "losses/common.h"

namespace vpd::losses {

ReconstructionLoss reconstruction_loss(const at::Tensor& reconstruction, const at::Tensor& image,
                                       const at::Tensor& mean, const at::Tensor& logvar,
                                       double kl_weight) {
  VPD_CHECK(reconstruction.sizes() == image.sizes() && image.dim() == 4 && image.size(2) > 1 &&
                image.size(3) > 1,
            "reconstruction_loss: reconstruction and image must both be [B, C, H, W] with H, W >= 2, got ",
            reconstruction.sizes(), " and ", image.sizes());
  VPD_CHECK(mean.sizes() == logvar.sizes(),
            "reconstruction_loss: mean and logvar must have one shape, got ", mean.sizes(), " and ",
            logvar.sizes());
  const at::Tensor error = widened(reconstruction) - widened(image);
  const at::Tensor m = widened(mean), v = widened(logvar);
  ReconstructionLoss loss;
  loss.pixels = error.abs().mean();
  // The difference of the errors is the error of the differences.
  loss.edges = at::diff(error, 1, -1).abs().mean() + at::diff(error, 1, -2).abs().mean();
  loss.kl = 0.5 * (m * m + v.exp() - 1 - v).mean();
  loss.total = loss.pixels + loss.edges + kl_weight * loss.kl;
  return loss;
}

}  // namespace vpd::losses
