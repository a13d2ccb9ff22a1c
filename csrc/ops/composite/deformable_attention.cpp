// Compositions of ATen ops, for devices without a kernel of their own: one level at a time, each
// point of each query held for all channels.
#include "ops/deformable_attention.h"

#include <ATen/OpMathType.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/grid_sampler_2d.h>
#include <ATen/ops/grid_sampler_2d_backward.h>
#include <ATen/ops/zeros.h>

namespace vpd::ops {
namespace {
using at::Tensor;

constexpr int64_t kBilinear = 0, kZeros = 0;  // interpolation and padding of grid_sampler_2d

// One level as batches of [B * heads].
struct Level {
  Tensor plane;    // [B * heads, D, height, width]
  Tensor grid;     // [B * heads, Q, P, 2] in [-1, 1]
  Tensor weights;  // [B * heads, 1, Q, P]

  Level(const Tensor& value, const Tensor& locations, const Tensor& weights_, LevelSize size,
        int64_t first, int64_t level) {
    const at::ScalarType type = at::toOpMathType(value.scalar_type());
    const int64_t planes = value.size(0) * value.size(2);
    const Tensor points = locations.select(3, level).to(type).transpose(1, 2);
    plane = value.narrow(1, first, size.height * size.width)
                .to(type)
                .permute({0, 2, 3, 1})
                .reshape({planes, value.size(3), size.height, size.width});
    grid = points.reshape({planes, points.size(2), points.size(3), 2}) * 2 - 1;
    weights = weights_.select(3, level).to(type).transpose(1, 2).reshape(
        {planes, 1, points.size(2), points.size(3)});
  }

  Tensor sampled() const {  // [B * heads, D, Q, P]
    return at::grid_sampler_2d(plane, grid, kBilinear, kZeros, /*align_corners=*/false);
  }
};

// [B * heads, X, Y] -> [B, Y, heads, X]
Tensor by_image(const Tensor& t, int64_t batch) {
  return t.view({batch, -1, t.size(1), t.size(2)}).permute({0, 3, 1, 2});
}

Tensor deformable_attention_composite(const Tensor& value, const Tensor& shapes,
                                      const Tensor& locations, const Tensor& weights) {
  check_deformable_attention(value, shapes, locations, weights);
  const int64_t batch = value.size(0), queries = locations.size(1);
  const int64_t channels = value.size(2) * value.size(3);
  const auto type = at::toOpMathType(value.scalar_type());
  if (value.numel() == 0 || weights.numel() == 0) {
    return at::zeros({batch, queries, channels}, value.options());
  }
  Tensor sum =
      at::zeros({batch * value.size(2), value.size(3), queries}, value.options().dtype(type));
  int64_t first = 0, index = 0;
  for (const LevelSize size : level_sizes(shapes, value.size(1))) {
    const Level level(value, locations, weights, size, first, index++);
    sum.add_((level.sampled() * level.weights).sum(-1));
    first += size.height * size.width;
  }
  return by_image(sum, batch).reshape({batch, queries, channels}).to(value.scalar_type());
}

std::tuple<Tensor, Tensor, Tensor> deformable_attention_backward_composite(const Tensor& grad,
                                                                           const Tensor& value,
                                                                           const Tensor& shapes,
                                                                           const Tensor& locations,
                                                                           const Tensor& weights) {
  check_deformable_attention_backward(grad, value, shapes, locations, weights);
  const int64_t batch = value.size(0), heads = value.size(2), width = value.size(3);
  const int64_t queries = locations.size(1), points = locations.size(4);
  Tensor grad_value = at::zeros(value.sizes(), value.options());
  Tensor grad_locations = at::zeros(locations.sizes(), locations.options());
  Tensor grad_weights = at::zeros(weights.sizes(), weights.options());
  if (value.numel() == 0 || weights.numel() == 0) {
    return {grad_value, grad_locations, grad_weights};
  }
  const Tensor upstream = grad.to(at::toOpMathType(value.scalar_type()))
                              .reshape({batch, queries, heads, width})
                              .permute({0, 2, 3, 1})
                              .reshape({batch * heads, width, queries, 1});
  int64_t first = 0, index = 0;
  for (const LevelSize size : level_sizes(shapes, value.size(1))) {
    const Level level(value, locations, weights, size, first, index);
    const int64_t pixels = size.height * size.width;
    const Tensor by_weight = (level.sampled() * upstream).sum(1);  // [B * heads, Q, P]
    const auto [plane, grid] =
        at::grid_sampler_2d_backward(upstream * level.weights, level.plane, level.grid, kBilinear,
                                     kZeros, /*align_corners=*/false, {true, true});
    grad_value.narrow(1, first, pixels).copy_(by_image(plane.flatten(2), batch));
    grad_locations.select(3, index).copy_(
        (grid * 2).view({batch, heads, queries, points, 2}).transpose(1, 2));
    grad_weights.select(3, index).copy_(
        by_weight.view({batch, heads, queries, points}).transpose(1, 2));
    first += pixels;
    ++index;
  }
  return {grad_value, grad_locations, grad_weights};
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, CompositeExplicitAutograd, m) {
  m.impl("deformable_attention", deformable_attention_composite);
  m.impl("deformable_attention_backward", deformable_attention_backward_composite);
}

}  // namespace vpd::ops
