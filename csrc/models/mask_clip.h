#pragma once
#include "models/clip_image.h"

namespace vpd::models {

// What CLIP's image encoder sees in parts of pictures, in the joint space of pictures and texts.
//   pixels: [B, num_channels, h, w], normalised as CLIP's, any size; resized bilinearly to the
//           encoder's own square
//   masks:  logits [B, N, h', w'], any size and number, of the same area as the pixels
// -> [B, N, projection_dim], not normalised

// How copies of the class token are kept to their masks.
enum class MaskRule {
  // A copy attends to the class token and to its patches; nothing attends to a copy. A mask without
  // a patch sees what the class token began as.
  kHide,
  // Recent releases of open_clip (not the 2.0.2 that ODISE names) take the flags of what is hidden
  // for numbers and add them to the attention logits: what should be hidden gets 1 more instead.
  kAddOne,
};

// Mask tokens (Ding et al. 2023, "Open-Vocabulary Universal Image Segmentation with MaskCLIP"): a
// copy of the class token for each mask; a patch belongs to a mask whose sigmoid reaches 0.5 in it.
Tensor mask_tokens(const CLIPImageEncoder& encoder, const Params& p, const Tensor& pixels,
                   const Tensor& masks, MaskRule rule = MaskRule::kHide);

// Pooling (Xu et al. 2023, equation 9): the mean of the patches' own features, each weighted by its
// share of pixels whose sigmoid exceeds 0.5. A mask without such pixels gives zeros.
Tensor mask_pooled(const CLIPImageEncoder& encoder, const Params& p, const Tensor& pixels,
                   const Tensor& masks);

}  // namespace vpd::models
