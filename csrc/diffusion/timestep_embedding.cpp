#include "diffusion/timestep_embedding.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>

#include <cmath>

namespace vpd::diffusion {

at::Tensor timestep_embedding(const at::Tensor& timesteps, int64_t dim) {
  const auto options = timesteps.options().dtype(at::kFloat);
  const int64_t half = dim / 2;
  const at::Tensor frequencies = (at::arange(half, options) * (-std::log(10000.0) / half)).exp();
  const at::Tensor angles = timesteps.to(at::kFloat).unsqueeze(1) * frequencies.unsqueeze(0);
  return at::cat({angles.cos(), angles.sin()}, 1);
}

}  // namespace vpd::diffusion
