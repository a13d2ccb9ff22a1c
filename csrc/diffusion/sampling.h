#pragma once
#include <functional>

#include "diffusion/sampler.h"

namespace vpd::diffusion {

// The network's output for what it sees of the samples at a timestep, guidance included.
using Denoiser = std::function<at::Tensor(const at::Tensor& seen, double timestep)>;
// Standard normal noise of a step, of the samples' shape.
using StepNoise = std::function<at::Tensor(int64_t index, const at::Tensor& samples)>;
// Told after every step; may return samples to go on with instead.
using StepWatcher = std::function<std::optional<at::Tensor>(
    int64_t index, const at::Tensor& samples, const at::Tensor& clean)>;

// The samples [B, ...] after all steps from `first` on, without gradients, in float32 (float64 if
// `start` is).
at::Tensor sample(const Sampler& sampler, const at::Tensor& start, const Denoiser& denoise,
                  const StepNoise& noise = {}, const StepWatcher& watch = {}, int64_t first = 0);

}  // namespace vpd::diffusion
