#pragma once
#include "losses/common.h"

namespace vpd::losses {

struct MaskLosses {
  at::Tensor cross_entropy;  // []: sum over pixels of weighted_cross_entropy
  at::Tensor dice;           // []: sum over samples of dice_loss
};

// The two losses of a binary mask in one pass, at the target's size, from scores of any size, which
// are interpolated to it (bilinear, corners aligned):
//   scores [B, 2, h, w] (background, object), target int64 [B, H, W] with values 0 and 1,
//   weight of the two classes
// Both depend on the difference of the scores alone, so only that is interpolated.
MaskLosses mask_losses(const at::Tensor& scores, const at::Tensor& target,
                       const std::vector<double>& weight);

}  // namespace vpd::losses
