#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

namespace vpd::ops {

// What two readings of masks by name become (Xu et al. 2023, section 3.4). Made of ATen's
// operators: on any device, and differentiable.

// Logarithm of a weighted geometric mean, p^(1 - l) q^l, where p and q are the softmax over
// categories of the two readings, and l is `alpha` for categories that were seen in training and
// `beta` for the others.
//   logits, other: [..., K]; seen: K flags -> [..., K], float32 at least, not normalised
at::Tensor geometric_mean(const at::Tensor& logits, const at::Tensor& other,
                          const std::vector<bool>& seen, double alpha, double beta);

// Logits with "no object" last, as readers of classified masks take them:
// log([softmax(logits) (1 - nothing), nothing] + 1e-8).
//   logits [..., K], nothing: probabilities [...] -> [..., K + 1], float32 at least
at::Tensor with_no_object(const at::Tensor& logits, const at::Tensor& nothing);

}  // namespace vpd::ops
