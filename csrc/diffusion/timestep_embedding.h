#pragma once
#include <ATen/core/Tensor.h>

namespace vpd::diffusion {

// cat(cos, sin) of t * exp(-ln(10000) i / (dim/2)), i = 0 .. dim/2 - 1 (Vaswani et al. 2017), in
// float32.
//   timesteps [B] -> [B, dim]
at::Tensor timestep_embedding(const at::Tensor& timesteps, int64_t dim);

}  // namespace vpd::diffusion
