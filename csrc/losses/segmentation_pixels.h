#pragma once
// Two ways to the cross-entropy of every pixel of a label map, from logits that are interpolated to
// its size (bilinear, corners not aligned) unless they have it: by image, with ATen's operators, on
// any device; by row of pixels, on the CPU. Neither holds the interpolated logits of a whole batch,
// nor keeps any for the backward.
#include "losses/common.h"

namespace vpd::losses {

struct Pixels {
  at::Tensor logits;  // float32 or float64 [B, K, h, w]
  at::Tensor target;  // int64 [B, H, W]
  at::Tensor weight;  // [K], as logits
  int64_t ignore_index;
};

struct PixelLosses {
  at::Tensor loss;     // [B, H, W]: weight times cross-entropy; 0 where ignored
  at::Tensor log_sum;  // [B, H, W]: log sum exp of the logits; by row 0 where ignored
  at::Tensor correct;  // [] int64: pixels whose label is the first class of the highest logit
};

PixelLosses losses_by_image(const Pixels& pixels);
PixelLosses losses_by_row(const Pixels& pixels);  // float32 on the CPU

// From grad [B, H, W] of the loss to that of the logits.
at::Tensor gradient_by_image(const Pixels& pixels, const at::Tensor& log_sum,
                             const at::Tensor& grad);
at::Tensor gradient_by_row(const Pixels& pixels, const at::Tensor& log_sum, const at::Tensor& grad);

}  // namespace vpd::losses
