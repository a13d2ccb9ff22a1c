#pragma once
#include "losses/common.h"

namespace vpd::losses {

// Sums over the pixels of a batch with a true depth, d = ln(target) - ln(prediction). Those of its
// parts add up to them. All [] float64.
struct SilogSums {
  at::Tensor n;        // pixels
  at::Tensor sum;      // of d
  at::Tensor squares;  // of d^2
};

//   prediction [B, H, W] or [B, 1, H, W] in metres, > 0; target of the same shape. A pixel counts
//   if min_depth < target < infinity.
SilogSums silog_sums(const at::Tensor& prediction, const at::Tensor& target, double min_depth);

// sqrt(mean d^2 - variance_focus (mean d)^2) (Eigen et al. 2014, equation 4, under a root), []; 0,
// with zero gradient, without a pixel that counts and where there is nothing left to improve.
at::Tensor silog_of(const SilogSums& sums, double variance_focus);

// That of a whole batch, in float32 at least.
at::Tensor silog_loss(const at::Tensor& prediction, const at::Tensor& target, double variance_focus,
                      double min_depth);

}  // namespace vpd::losses
