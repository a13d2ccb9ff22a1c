#pragma once
#include "losses/common.h"

namespace vpd::losses {

struct ReconstructionLoss {
  at::Tensor total;   // pixels + edges + kl_weight * kl
  at::Tensor pixels;  // mean |reconstruction - image|
  at::Tensor edges;   // the same of differences between neighbours, along x plus along y
  at::Tensor kl;      // divergence of the posterior from the standard normal, mean over elements
};

// What trains a small KL autoencoder: no perceptual network, no discriminator; edges keep small
// objects sharp.
//   reconstruction and image [B, C, H, W], H and W at least 2; mean and logvar of the posterior, of
//   one shape
ReconstructionLoss reconstruction_loss(const at::Tensor& reconstruction, const at::Tensor& image,
                                       const at::Tensor& mean, const at::Tensor& logvar,
                                       double kl_weight);

}  // namespace vpd::losses
