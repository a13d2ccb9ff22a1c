#pragma once
#include <ATen/core/Tensor.h>

namespace vpd::ops {

// Mean of features inside each mask (Xu et al. 2023, section 3.3):
//   x [B, C, H, W], masks logits [B, Q, H, W] -> sum(w x) / (sum(w) + 1e-8)  [B, Q, C]
// where w is 1 where the logit is positive and 0 elsewhere, or with soft its sigmoid. So an empty
// mask has 0. Computed in float32 at least; no gradient reaches the masks, of which nothing but the
// logits themselves is kept for the backward.
at::Tensor mask_pooling(const at::Tensor& x, const at::Tensor& masks, bool soft = false);

}  // namespace vpd::ops
