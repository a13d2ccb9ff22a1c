#include "losses/point_samples.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/grid_sampler_2d.h>

#include <cmath>

#include "core/check.h"

namespace vpd::losses {

using at::Tensor;

namespace {

// One mask at one point.
float sample(const uint8_t* mask, int64_t height, int64_t width, const float* point) {
  const float x = point[0] * static_cast<float>(width) - 0.5f;
  const float y = point[1] * static_cast<float>(height) - 0.5f;
  if (!(x > -1 && y > -1 && x < static_cast<float>(width) && y < static_cast<float>(height))) {
    return 0;
  }
  const float left = std::floor(x), top = std::floor(y);
  const auto column = static_cast<int64_t>(left), row = static_cast<int64_t>(top);
  const auto at = [&](int64_t r, int64_t c) {
    const bool inside = r >= 0 && r < height && c >= 0 && c < width;
    return inside ? static_cast<float>(mask[r * width + c]) : 0.f;
  };
  const float right = x - left, down = y - top;
  return (1 - down) * ((1 - right) * at(row, column) + right * at(row, column + 1)) +
         down * ((1 - right) * at(row + 1, column) + right * at(row + 1, column + 1));
}

}  // namespace

Tensor sample_points(const Tensor& maps, const Tensor& points) {
  const Tensor grid = (2 * points.to(maps.scalar_type()) - 1).unsqueeze(1);  // [N, 1, P, 2]
  return at::grid_sampler_2d(maps, grid, /*interpolation_mode=*/0, /*padding_mode=*/0,
                             /*align_corners=*/false)
      .squeeze(2);
}

Tensor sample_masks(const Tensor& masks, const Tensor& index, const Tensor& points_) {
  const at::NoGradGuard no_grad;
  const int64_t count = index.size(0), per_mask = points_.size(1);
  const bool here = masks.numel() > 0 ? has_values(masks) : masks.is_cpu();
  if (!here || masks.is_floating_point()) {
    const Tensor picked = masks.index_select(0, index.to(masks.device())).to(at::kFloat);
    return sample_points(picked.unsqueeze(1), points_.expand({count, per_mask, 2})).squeeze(1);
  }
  const Tensor pixels = masks.contiguous(), which = index.contiguous();
  const Tensor points = points_.to(at::kFloat).contiguous();
  const Tensor result = at::empty({count, per_mask}, points.options());
  const auto* pixel = static_cast<const uint8_t*>(pixels.const_data_ptr());
  const int64_t* of = which.const_data_ptr<int64_t>();
  const float* point = points.const_data_ptr<float>();
  const int64_t step = points.size(0) == 1 ? 0 : per_mask;
  const int64_t height = masks.size(1), width = masks.size(2);
  float* to = result.mutable_data_ptr<float>();
  at::parallel_for(0, count * per_mask, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t n = i / per_mask, p = i % per_mask;
      to[i] = sample(pixel + of[n] * height * width, height, width, point + (n * step + p) * 2);
    }
  });
  return result;
}

}  // namespace vpd::losses
