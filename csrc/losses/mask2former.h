#pragma once
#include <ATen/core/Generator.h>

#include <array>
#include <utility>

#include "losses/common.h"

namespace vpd::losses {

// Factors of the terms, in the cost of a match and in the total loss.
struct TermWeights {
  double label = 2, cross_entropy = 5, dice = 5;
};

// Places in [0, 1)^2 where masks are compared, for one head output of a batch with N matched masks.
struct PointDraws {
  at::Tensor matching;    // [B, points, 2]: what the matching looks at
  at::Tensor candidates;  // [N, int(oversample * points), 2]: the most uncertain of these stay
  at::Tensor rest;        // [N, points - int(uncertain * points), 2]: these as they are
};

struct Mask2FormerOptions {
  TermWeights weights;
  double no_object = 0.1;       // weight of that class in the cross-entropy of labels
  int64_t points = 12544;       // per mask
  double oversample = 3;        // candidates per point
  double uncertain = 0.75;      // share of the points that is chosen among the candidates
  std::optional<double> masks;  // what sums over masks are divided by; default: those of the
                                // batch, at least 1
  std::optional<at::Generator> generator;  // draws what `draws` does not give
  std::vector<PointDraws> draws;           // none, or one for each head output
};

// Cost of giving each target to each query of one image (Cheng et al. 2022, section 3.1 and
// appendix): - label weight * probability of the label + cross-entropy of the masks + Dice loss.
//   logits [Q, K + 1], masks [Q, h, w], labels int64 [M], targets bool, uint8 or floating point
//   [M, H, W], points [P, 2] -> [Q, M] without gradient
at::Tensor mask2former_cost(const at::Tensor& logits, const at::Tensor& masks,
                            const at::Tensor& labels, const at::Tensor& targets,
                            const at::Tensor& points, const TermWeights& weights);

struct Mask2FormerLoss {
  at::Tensor cross_entropy, mask, dice;  // [outputs], without weights
  at::Tensor total;                      // []: their weighted sum over all outputs
  // Queries and targets, int64 on the CPU, by output and image.
  std::vector<std::vector<std::pair<at::Tensor, at::Tensor>>> matches;
};

// The criterion of Mask2Former, for several outputs of its head (deep supervision), each matched by
// itself:
//   logits [B, Q, K + 1] (the last class is "no object") and masks [B, Q, h, w] of each output,
//   labels int64 [M_b] and targets [M_b, H, W] of each image, H x W the same for all
Mask2FormerLoss mask2former_loss(const std::vector<at::Tensor>& logits,
                                 const std::vector<at::Tensor>& masks,
                                 const std::vector<at::Tensor>& labels,
                                 const std::vector<at::Tensor>& targets,
                                 const Mask2FormerOptions& options);

}  // namespace vpd::losses
