#pragma once
#include "losses/common.h"

namespace vpd::losses {

// Cross-entropy of each pixel, times the weight of its class.
//   logits [B, K, H, W], target int64 [B, H, W] with values 0 .. K-1, weight [K]
// kMean divides by the sum of the weights of the target pixels, not by their number (PyTorch's
// rule; LAVT and VPD train with weights 0.9 and 1.1 for background and object). kNone -> [B, H, W].
at::Tensor weighted_cross_entropy(const at::Tensor& logits, const at::Tensor& target,
                                  const std::vector<double>& weight, Reduction reduction);

}  // namespace vpd::losses
