#pragma once
#include <driver_types.h>

#include <cstddef>

#include "types.h"

namespace vpd::ops::cuda {

struct GroupNormShape {
  int64_t batch, channels, pixels, groups;
  bool channels_last;
};

// Bytes of scratch memory that a launch needs.
size_t group_norm_silu_scratch(Type type, const GroupNormShape& shape);

// weight, bias, mean and rstd are float (double where type is double).
struct GroupNormForward {
  Type type;
  GroupNormShape shape;
  const void *x, *weight, *bias;
  double eps;
  bool silu;
  void *y, *mean, *rstd, *scratch;
};
cudaError_t launch_group_norm_silu(const GroupNormForward& call, cudaStream_t stream);

// Gradients of weight and bias have their accumulation type; those not wanted are null.
struct GroupNormBackward {
  Type type;
  GroupNormShape shape;
  const void *grad, *x, *weight, *bias, *mean, *rstd;
  bool silu;
  void *grad_x, *grad_weight, *grad_bias, *scratch;
};
cudaError_t launch_group_norm_silu_backward(const GroupNormBackward& call, cudaStream_t stream);

}  // namespace vpd::ops::cuda
