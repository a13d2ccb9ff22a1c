#include "diffusion/sampling.h"

#include <ATen/core/grad_mode.h>

#include "core/check.h"

namespace vpd::diffusion {

at::Tensor sample(const Sampler& sampler, const at::Tensor& start, const Denoiser& denoise,
                  const StepNoise& noise, const StepWatcher& watch, int64_t first) {
  const auto count = static_cast<int64_t>(sampler.steps().size());
  VPD_CHECK(first >= 0 && first < count, "sample: the first step must be in [0, ", count, "), got ",
            first);
  const at::NoGradGuard no_grad;
  at::Tensor x = start.scalar_type() == at::kDouble ? start : start.to(at::kFloat);
  std::optional<at::Tensor> clean;
  for (int64_t i = first; i < count; ++i) {
    const SamplerStep& step = sampler.steps()[static_cast<size_t>(i)];
    const at::Tensor seen = step.input_scale == 1 ? x : step.input_scale * x;
    const at::Tensor output = denoise(seen, step.timestep);
    std::optional<at::Tensor> drawn;
    if (step.noise != 0 && noise) drawn = noise(i, x);
    const StepResult result = sampler.step(i, x, output, drawn, clean);
    x = result.sample;
    clean = result.clean;
    if (!watch) continue;
    if (const std::optional<at::Tensor> other = watch(i, x, *clean)) {
      VPD_CHECK(other->sizes() == x.sizes(), "sample: what replaces the samples must be ",
                x.sizes(), ", got ", other->sizes());
      x = other->to(x.options());
    }
  }
  return x;
}

}  // namespace vpd::diffusion
