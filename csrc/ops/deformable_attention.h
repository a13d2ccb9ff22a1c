#pragma once
#include <ATen/core/Tensor.h>

#include <tuple>
#include <vector>

namespace vpd::ops {

// Attention to a few points of several feature maps (Deformable DETR, Zhu et al. 2021, eq. 3):
//   value [B, S, heads, D]: pixels of all levels, row by row, one level after the other
//   shapes int64 [L, 2]: height and width of each level, on the CPU or on value's device
//   locations [B, Q, heads, L, P, 2]: (x, y) as fractions of each level's width and height
//   weights [B, Q, heads, L, P]
//   -> [B, Q, heads * D], value's dtype: sums of weights times values, interpolated bilinearly at
//      the locations (pixels are areas: the first one's centre is at 0.5 / width), 0 outside
// Locations and weights may be of a wider floating type than value.
at::Tensor deformable_attention(const at::Tensor& value, const at::Tensor& shapes,
                                const at::Tensor& locations, const at::Tensor& weights);

// grad [B, Q, heads * D] -> gradients of value, locations and weights, each of its own dtype.
std::tuple<at::Tensor, at::Tensor, at::Tensor> deformable_attention_backward(
    const at::Tensor& grad, const at::Tensor& value, const at::Tensor& shapes,
    const at::Tensor& locations, const at::Tensor& weights);

// Shared by the kernels of all devices; throw std::invalid_argument.
void check_deformable_attention(const at::Tensor& value, const at::Tensor& shapes,
                                const at::Tensor& locations, const at::Tensor& weights);
void check_deformable_attention_backward(const at::Tensor& grad, const at::Tensor& value,
                                         const at::Tensor& shapes, const at::Tensor& locations,
                                         const at::Tensor& weights);

struct LevelSize {
  int64_t height, width;
};

// Values of shapes, which is waited for if it is on a device. Throws std::invalid_argument unless
// the levels have `pixels` pixels together.
std::vector<LevelSize> level_sizes(const at::Tensor& shapes, int64_t pixels);

}  // namespace vpd::ops
