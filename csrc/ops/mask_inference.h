#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "ops/mask_grid.h"

namespace vpd::ops {

// What becomes of classified masks (Cheng et al. 2022): three readings of the same output of one
// image.
//   logits: [Q, K + 1], the last one of "no object"; p = softmax(logits)
//   masks:  logits [Q, h, w] on any grid, on the CPU; s = sigmoid(masks) at the picture's pixels
//   things: by class, whether it has countable objects; the others are stuff
// Pixels are looked at one after the other or in bands: no mask ever exists at the picture's size.

struct PanopticSegment {
  int64_t id, category;
  double score;  // the highest p of the masks it is made of
};

struct PanopticSegments {
  at::Tensor ids;                         // int32 [H, W], 0 = none
  std::vector<PanopticSegment> segments;  // ids 1, 2, ...
};

// Every pixel goes to the mask with the highest p s, among masks whose likeliest class is one and
// has p > min_score, and belongs to it if s >= 0.5 there. A mask that is left with less than
// min_overlap of its s >= 0.5 is dropped. Masks of one stuff class are one segment.
PanopticSegments panoptic_inference(const at::Tensor& logits, const at::Tensor& masks,
                                    const MaskView& view, const std::vector<bool>& things,
                                    double min_score, double min_overlap);

// Sum of p s over masks for rows first ... last - 1 of the picture: float32 [last - first, W, K].
at::Tensor semantic_scores(const at::Tensor& logits, const at::Tensor& masks, const MaskView& view,
                           int64_t first, int64_t last);

// The class with the highest of these sums: int64 [H, W].
at::Tensor semantic_inference(const at::Tensor& logits, const at::Tensor& masks,
                              const MaskView& view);

struct InstanceMask {
  int64_t category, mask;  // `mask`: place in `runs`
  double score;
};

struct InstanceMasks {
  std::vector<InstanceMask> instances;  // scores descending
  // Pixels outside, inside, outside, ... in COCO's order: column after column.
  std::vector<std::vector<int64_t>> runs;
};

// The `top` pairs of mask and class with the highest p, things only; masks are where s > 0.5 and
// scores p times the mean of s there. One mask can stand for several classes.
InstanceMasks instance_inference(const at::Tensor& logits, const at::Tensor& masks,
                                 const MaskView& view, const std::vector<bool>& things,
                                 int64_t top);

}  // namespace vpd::ops
