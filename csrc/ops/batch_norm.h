#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

namespace vpd::ops {

// Processes that hold the rows of one batch between them: a process group of torch.distributed, by
// the name that it is registered under.
struct ProcessGroup {
  std::string name;
  int64_t size = 1;
};

// Batch normalisation of x [B, C, ...] by the statistics of the rows of all processes of a group,
// which may hold different numbers of them, even none. Moves running_mean and running_var [C] in
// place, as the whole batch does: not a PureFunction, so never to be recomputed.
//
// All processes call it together, and its backward too where x has a gradient. Gradients of weight
// and bias are those of the own rows; those of all processes add up to the whole batch's. Second
// derivatives are refused.
at::Tensor synchronized_batch_norm(const at::Tensor& x, const at::Tensor& weight,
                                   const at::Tensor& bias, const at::Tensor& running_mean,
                                   const at::Tensor& running_var, double momentum, double eps,
                                   const ProcessGroup& group);

}  // namespace vpd::ops
