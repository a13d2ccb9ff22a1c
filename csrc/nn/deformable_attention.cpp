#include "nn/deformable_attention.h"

#include <ATen/ops/addcmul.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "core/constant.h"
#include "nn/init.h"
#include "ops/deformable_attention.h"

namespace vpd::nn {

PixelGrid::PixelGrid(const std::vector<std::array<int64_t, 2>>& sizes,
                     const at::TensorOptions& options) {
  std::vector<int64_t> counts;
  std::vector<double> between;
  std::vector<Tensor> places;
  for (const auto& [height, width] : sizes) {
    counts.insert(counts.end(), {height, width});
    between.insert(between.end(), {1.0 / width, 1.0 / height});
    const Tensor y = (at::arange(height, options) + 0.5) / height;
    const Tensor x = (at::arange(width, options) + 0.5) / width;
    places.push_back(
        at::stack({x.expand({height, width}), y.unsqueeze(1).expand({height, width})}, -1)
            .flatten(0, 1));
  }
  const int64_t levels = static_cast<int64_t>(sizes.size());
  shapes = constant(counts, at::kLong).view({levels, 2});
  centres = at::cat(places).view({-1, 1, 1, 1, 2});
  steps = constant(between, options).view({levels, 1, 2});
}

DeformableAttention::DeformableAttention(Scope scope, int64_t channels, int64_t heads,
                                         int64_t levels, int64_t points)
    : heads_(heads),
      levels_(levels),
      points_(points),
      offsets_weight_(
          (scope / "sampling_offsets")
              .declare("weight", {heads * levels * points * 2, channels}, Init::zeros())),
      offsets_bias_((scope / "sampling_offsets")
                        .declare("bias", {heads * levels * points * 2}, Init::zeros())),
      attention_weights_(scope / "attention_weights", channels, heads * levels * points,
                         /*bias=*/true, Init::zeros(), Init::zeros()),
      value_proj_(scope / "value_proj", channels, channels, /*bias=*/true,
                  xavier(channels, channels), Init::zeros()),
      output_proj_(scope / "output_proj", channels, channels, /*bias=*/true,
                   xavier(channels, channels), Init::zeros()) {}

Tensor DeformableAttention::operator()(const Params& p, const Tensor& query, const Tensor& tokens,
                                       const PixelGrid& grid) const {
  const at::ScalarType wide = grid.centres.scalar_type();
  const Tensor value = value_proj_(p, tokens).unflatten(2, {heads_, -1});  // [B, S, heads, D]
  const Tensor offsets = at::linear(query, p[offsets_weight_], p[offsets_bias_]).to(wide);
  const Tensor weights = attention_weights_(p, query)
                             .unflatten(2, {heads_, levels_ * points_})
                             .softmax(-1, wide)
                             .unflatten(3, {levels_, points_});
  // In rows as long as an offset's: broadcasting along dimensions of 2 and 4 is slow.
  const std::array<int64_t, 5> shape{grid.centres.size(0), heads_, levels_, points_, 2};
  const Tensor locations = at::addcmul(grid.centres.expand(shape).flatten(1), offsets,
                                       grid.steps.expand(at::IntArrayRef(shape).slice(1)).flatten())
                               .unflatten(2, at::IntArrayRef(shape).slice(1));
  return output_proj_(p, ops::deformable_attention(value, grid.shapes, locations, weights));
}

void DeformableAttention::spread_points(const std::vector<Tensor>& tensors) const {
  std::vector<double> offsets;  // [heads, levels, points, (x, y)]
  for (int64_t head = 0; head < heads_; ++head) {
    const double angle = 2 * std::numbers::pi * static_cast<double>(head) / heads_;
    const double x = std::cos(angle), y = std::sin(angle);
    const double larger = std::max(std::abs(x), std::abs(y));
    for (int64_t i = 0; i < levels_ * points_; ++i) {
      const double pixels = static_cast<double>(i % points_ + 1) / larger;
      offsets.insert(offsets.end(), {x * pixels, y * pixels});
    }
  }
  const Tensor& bias = tensors[offsets_bias_.index()];
  bias.copy_(constant(offsets, at::kDouble));
}

}  // namespace vpd::nn
