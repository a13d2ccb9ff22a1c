#pragma once
#include "losses/common.h"

namespace vpd::losses {

// Soft Dice loss of the object class (Milletari et al. 2016), per sample, smoothed by 1:
//   1 - (2 sum(p y) + 1) / (sum(p) + sum(y) + 1), p = softmax(logits)[1]
//   logits [B, 2, H, W], target int64 [B, H, W] with values 0 and 1; kNone -> [B]
at::Tensor dice_loss(const at::Tensor& logits, const at::Tensor& target, Reduction reduction);

}  // namespace vpd::losses
