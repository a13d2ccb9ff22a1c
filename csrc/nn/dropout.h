#pragma once
#include <ATen/core/Tensor.h>

#include "nn/mode.h"

namespace vpd::nn {

// In training, sets whole channels of x [B, C, H, W] to zero, each with a probability in [0, 1),
// and scales the others so that the expectation stays (Tompson et al. 2015).
at::Tensor dropout2d(const at::Tensor& x, double probability, const Mode& mode);

}  // namespace vpd::nn
