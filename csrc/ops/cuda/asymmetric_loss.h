#pragma once
#include <driver_types.h>

#include "types.h"

namespace vpd::ops::cuda {

enum class TargetType { kByte, kFloat, kDouble, kHalf, kBFloat16 };

struct AsymmetricLoss {
  double gamma_neg, gamma_pos, clip, eps;
};

// Multi-label logits and their targets, 0 or not; both dense.
struct Labelled {
  Type type;
  const void* logits;  // [count]
  TargetType target_type;
  const void* target;  // [count]
  int64_t count;
};

// Blocks of a launch: the length of `partial` below.
unsigned asymmetric_loss_blocks(int64_t count);

// values [count] or, if that is null, partial sums of the blocks; both in the accumulation type.
cudaError_t launch_asymmetric_loss(const Labelled& x, const AsymmetricLoss& loss, void* values,
                                   void* partial, cudaStream_t stream);

// grad [count], or a single value with one_for_all, in the accumulation type -> grad_logits
// [count].
cudaError_t launch_asymmetric_loss_backward(const Labelled& x, const AsymmetricLoss& loss,
                                            bool full_grad, const void* grad, bool one_for_all,
                                            void* grad_logits, cudaStream_t stream);

}  // namespace vpd::ops::cuda
