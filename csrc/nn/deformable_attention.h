#pragma once
#include <array>

#include "core/params.h"
#include "nn/linear.h"

namespace vpd::nn {

// Where the pixels of several maps are: S of them, row by row, one of the L maps after the other.
struct PixelGrid {
  Tensor shapes;   // int64 [L, 2] on the CPU: height and width
  Tensor centres;  // [S, 1, 1, 1, 2]: (x, y) of each pixel, as fractions of its own map's size
  Tensor steps;    // [L, 1, 2]: (x, y) from one pixel to the next, in the same unit

  // sizes: (height, width) of each map.
  PixelGrid(const std::vector<std::array<int64_t, 2>>& sizes, const at::TensorOptions& options);
};

// Attention of each pixel to a few points of every map around its own place (Zhu et al. 2021,
// Deformable DETR, eq. 3), with the original's names: sampling_offsets.*, attention_weights.*,
// value_proj.*, output_proj.*
class DeformableAttention {
 public:
  DeformableAttention(Scope scope, int64_t channels, int64_t heads, int64_t levels, int64_t points);
  // query and tokens [B, S, C] -> [B, S, C]. Places and weights are computed in the grid's dtype.
  Tensor operator()(const Params& p, const Tensor& query, const Tensor& tokens,
                    const PixelGrid& grid) const;
  // Spreads the points, which start at their pixel: head h looks in direction 2 pi h / heads, its
  // i-th point i pixels away (in the larger of x and y).
  void spread_points(const std::vector<Tensor>& tensors) const;

 private:
  int64_t heads_;
  int64_t levels_;
  int64_t points_;
  Slot offsets_weight_;
  Slot offsets_bias_;
  Linear attention_weights_;
  Linear value_proj_;
  Linear output_proj_;
};

}  // namespace vpd::nn
