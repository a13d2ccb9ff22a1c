#pragma once
#include <driver_types.h>

#include "types.h"

namespace vpd::ops::cuda {

// x [rows, 2 width] -> y [rows, width]; both dense and aligned to 16 bytes.
cudaError_t launch_geglu(Type type, const void* x, void* y, int64_t rows, int64_t width,
                         cudaStream_t stream);

// grad [rows, width], x [rows, 2 width] -> grad_x [rows, 2 width]
cudaError_t launch_geglu_backward(Type type, const void* grad, const void* x, void* grad_x,
                                  int64_t rows, int64_t width, cudaStream_t stream);

}  // namespace vpd::ops::cuda
