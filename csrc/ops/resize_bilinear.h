#pragma once
#include <ATen/core/Tensor.h>

namespace vpd::ops {

// x [B, C, h, w], interpolated bilinearly to `size`, in x's own dtype and memory format (autocast
// would take it to float32 and back). PyTorch's rules for align_corners.
//
// The gradient on the CPU is gathered, row by row along the memory, in float32: PyTorch's own
// scatters it value by value and takes longer than the convolutions around it.
at::Tensor resize_bilinear(const at::Tensor& x, at::IntArrayRef size, bool align_corners);

}  // namespace vpd::ops
