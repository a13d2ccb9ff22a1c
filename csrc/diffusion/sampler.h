#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "diffusion/noise_schedule.h"
#include "diffusion/spacing.h"

namespace vpd::diffusion {

enum class Method {
  kDDPM,            // Ho et al. 2020, on fewer timesteps
  kDDIM,            // Song et al. 2021
  kDDIMInverse,     // from a clean sample to the noise that DDIM would make it from
  kEuler,           // Karras et al. 2022, without churn
  kEulerAncestral,  // Euler down, noise up (k-diffusion)
  kDPMSolverPP,     // DPM-Solver++(2M), Lu et al. 2022
};
enum class Prediction { kEpsilon, kVelocity };  // what the network predicts

Method method_named(const std::string& name);
Prediction prediction_named(const std::string& name);
Interpolation interpolation_named(const std::string& name);

struct SamplerConfig {
  Method method = Method::kDDIM;
  int64_t steps = 50;
  std::optional<Spacing> spacing;  // kLeading for DDPM and DDIM, kLinspace for the others
  int64_t offset = 1;              // of kLeading
  Prediction prediction = Prediction::kEpsilon;
  double eta = 0;  // DDIM: 0 is deterministic, 1 as random as DDPM
  Interpolation interpolation = Interpolation::kLog;  // of Euler's sigmas at fractional timesteps
};

// One step. Every method here computes
//   x' = clean x_0 + direction epsilon + correction (x_0 - x_0 of the step before) + noise N(0, 1)
// where x_0 and epsilon follow from the sample x = signal x_0 + spread epsilon and the output of
// the network, which sees input_scale x and is told `timestep`.
struct SamplerStep {
  double timestep;
  double signal;
  double spread;
  double input_scale;
  double clean;
  double direction;
  double correction;
  double noise;
};

struct StepResult {
  at::Tensor sample;
  at::Tensor clean;  // the predicted x_0
};

// A way from noise to a sample (or back) as a table of numbers: it holds no tensor and no state.
class Sampler {
 public:
  Sampler(const NoiseSchedule& schedule, const SamplerConfig& config);

  const std::vector<SamplerStep>& steps() const { return steps_; }
  // Standard deviation of the noise to start from.
  double initial_scale() const { return initial_scale_; }
  // A clean sample with the noise it has before a step: where an edit of it starts.
  at::Tensor diffuse(const at::Tensor& clean, const at::Tensor& noise, int64_t index) const;

  // From before step `index` to after it. x is float or double [B, ...], `output` what the network
  // said of input_scale x. `noise` is needed where the step adds some; without `previous`, x_0 of
  // the step before, a two-step method does a one-step one.
  StepResult step(int64_t index, const at::Tensor& x, const at::Tensor& output,
                  const std::optional<at::Tensor>& noise = std::nullopt,
                  const std::optional<at::Tensor>& previous = std::nullopt) const;

 private:
  const SamplerStep& at(int64_t index) const;

  Prediction prediction_;
  std::vector<SamplerStep> steps_;
  double initial_scale_ = 1;
};

}  // namespace vpd::diffusion
