#pragma once
// What the processes of a group of torch.distributed do together; all of them call it. Through the
// dispatcher: the core does not link torch.distributed.
#include <ATen/core/Tensor.h>

#include <string>

namespace vpd::ops {

struct ProcessGroup;

// The sum of a tensor over all processes. No gradient.
at::Tensor sum_over(const at::Tensor& own, const std::string& group);

// Tensors of one shape of all processes: [size, ...], in the order of ranks. No gradient.
at::Tensor gather(const at::Tensor& own, const ProcessGroup& group);

// Rows [N_r, D] of all processes, each with as many as it has, even none: [sum of N_r, D], in the
// order of ranks. The gradient of a row is the sum of what it is to all processes, which therefore
// call backward together, too. Waits for the device, to read how many rows there are.
at::Tensor gather_rows(const at::Tensor& own, const ProcessGroup& group);

}  // namespace vpd::ops
