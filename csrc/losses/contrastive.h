#pragma once
#include "losses/common.h"

namespace vpd::losses {

// Symmetric InfoNCE of CLIP (Radford et al. 2021, figure 3): the mean of the cross-entropies that
// pick each image's text and each text's image out of the batch.
//   image and text [B, D], any length; scale [] multiplies the cosines (exp of CLIP's logit_scale)
at::Tensor contrastive_loss(const at::Tensor& image, const at::Tensor& text,
                            const at::Tensor& scale);

}  // namespace vpd::losses
