#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace vpd::nn {

// Maps of square windows as one map of whole pictures. The windows lie side by side, row by row,
// and the last ones of a row or column are moved back to end with the picture; where they thus
// overlap, the mean of them counts.
//
// windows [rows * columns * B, C, side, side], those of B pictures side by side -> [B, C, height,
// width], height and width at least side. Throws std::invalid_argument for another number of them.
at::Tensor join_windows(const at::Tensor& windows, int64_t height, int64_t width);

}  // namespace vpd::nn
