#pragma once
#include <ATen/core/Tensor.h>

namespace vpd::losses {

// Values between pixels, bilinear, 0 outside. Points are (x, y) as fractions of width and height;
// the first pixel's centre is at 0.5 / width (PointRend's point_sample, Kirillov et al. 2020).

// maps floating point [N, C, h, w], points [N, P, 2] -> [N, C, P]; differentiable in the maps.
at::Tensor sample_points(const at::Tensor& maps, const at::Tensor& points);

// masks bool, uint8 or floating point [M, H, W]; index int64 [n] picks some of them, each with
// points of its own, [n, P, 2], or all with the same, [1, P, 2] -> float32 [n, P]. No gradient. On
// the CPU bool and uint8 masks are read where they are: as floats they would be four times as
// large.
at::Tensor sample_masks(const at::Tensor& masks, const at::Tensor& index, const at::Tensor& points);

}  // namespace vpd::losses
