#pragma once
#include <ATen/core/Tensor.h>

namespace vpd::nn {

// Positions of a map's pixels as sines and cosines (Carion et al. 2020, appendix A.4): channels / 2
// of the row and then as many of the column, each counted from 1 and scaled so that the last is at
// 2 pi; channel 2 i is the sine and 2 i + 1 the cosine of the position over 10000^(4 i / channels).
// -> [height * width, channels], of which channels must divide by 4
at::Tensor sine_position(int64_t height, int64_t width, int64_t channels,
                         const at::TensorOptions& options);

}  // namespace vpd::nn
