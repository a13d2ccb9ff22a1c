#pragma once
#include <ATen/core/Tensor.h>

namespace vpd::losses {

// What an autoencoder of the small world is trained with: L1 of pixels, L1 of their horizontal and vertical differences
// (which keeps edges and stripes), and the KL divergence of the posterior from a standard normal.
struct ReconstructionLoss {
  at::Tensor total;    // pixels + edges + kl_weight * kl
  at::Tensor pixels;   // mean absolute error
  at::Tensor edges;    // mean absolute error of the differences along x plus those along y
  at::Tensor kl;       // 0.5 mean(mean^2 + var - 1 - logvar)
};

// reconstruction and image [B, C, H, W] with H, W >= 2; mean and logvar [B, c, h, w]
ReconstructionLoss reconstruction_loss(const at::Tensor& reconstruction, const at::Tensor& image,
                                       const at::Tensor& mean, const at::Tensor& logvar,
                                       double kl_weight);

}  // namespace vpd::losses
