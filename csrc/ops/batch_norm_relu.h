#pragma once
#include <ATen/core/Tensor.h>

namespace vpd::ops {

// relu(batch_norm(x)) of x [B, C, H, W] by the batch's own statistics, moving running_mean and
// running_var [C] in place. In channels_last on the CPU one pass less over memory each way than the
// two operators, and nothing is kept but x; elsewhere it is the two operators.
at::Tensor batch_norm_relu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                           const at::Tensor& running_mean, const at::Tensor& running_var,
                           double momentum, double eps);

}  // namespace vpd::ops
