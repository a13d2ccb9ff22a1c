#include "diffusion/sampler.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "diffusion/names.h"

namespace vpd::diffusion {

namespace {

bool visits_sigmas(Method method) {
  return method == Method::kEuler || method == Method::kEulerAncestral;
}

void check_config(const SamplerConfig& config) {
  VPD_CHECK(config.eta >= 0 && config.eta <= 1, "Sampler: eta must be in [0, 1], got ", config.eta);
  VPD_CHECK(config.eta == 0 || config.method == Method::kDDIM,
            "Sampler: eta is for ddim alone, got ", config.eta);
  VPD_CHECK(config.offset >= 0, "Sampler: offset must not be negative, got ", config.offset);
}

std::vector<double> timesteps_of(const SamplerConfig& config, int64_t total) {
  const bool solver = config.method == Method::kDPMSolverPP;
  const Spacing spacing = config.spacing.value_or(
      solver || visits_sigmas(config.method) ? Spacing::kLinspace : Spacing::kLeading);
  // DPM-Solver++ ends at sigma 0, so it spaces one timestep more and leaves out the cleanest.
  const bool extra = solver && spacing != Spacing::kTrailing;
  const int64_t most = total - (extra ? 1 : 0);
  VPD_CHECK(config.steps >= 1 && config.steps <= most, "Sampler: steps must be in [1, ", most,
            "], got ", config.steps);
  auto timesteps = spaced_timesteps(total, config.steps + (extra ? 1 : 0), spacing, config.offset,
                                    !visits_sigmas(config.method));
  if (extra) timesteps.pop_back();
  if (config.method == Method::kDDIMInverse) std::reverse(timesteps.begin(), timesteps.end());
  return timesteps;
}

// Between two levels of x = sqrt(bar) x_0 + sqrt(1 - bar) epsilon, with the share `eta` of the
// posterior's noise (Song et al. 2021, equations 12 and 16).
SamplerStep diffusion_step(double t, double bar, double bar_next, double eta) {
  const double variance = eta * eta * (1 - bar_next) / (1 - bar) * (1 - bar / bar_next);
  return {.timestep = t,
          .signal = std::sqrt(bar),
          .spread = std::sqrt(1 - bar),
          .input_scale = 1,
          .clean = std::sqrt(bar_next),
          .direction = std::sqrt(std::max(0.0, 1 - bar_next - variance)),
          .correction = 0,
          .noise = std::sqrt(variance)};
}

// DDPM goes from each timestep to the next of the list and ends clean, which is DDIM with all of
// the posterior's noise.
std::vector<SamplerStep> ddpm_steps(const std::vector<double>& bars,
                                    const std::vector<double>& timesteps) {
  std::vector<SamplerStep> steps;
  for (size_t i = 0; i < timesteps.size(); ++i) {
    const bool last = i + 1 == timesteps.size();
    steps.push_back(diffusion_step(timesteps[i], bars[static_cast<size_t>(timesteps[i])],
                                   last ? 1 : bars[static_cast<size_t>(timesteps[i + 1])], 1));
  }
  return steps;
}

// DDIM goes by one stride of T / steps whatever the spacing and ends at the level of timestep 0, as
// the original sampler and diffusers do.
std::vector<SamplerStep> ddim_steps(const std::vector<double>& bars,
                                    const std::vector<double>& timesteps, bool inverse,
                                    double eta) {
  const auto stride = static_cast<double>(bars.size() / timesteps.size());
  std::vector<SamplerStep> steps;
  for (const double t : timesteps) {
    const double here = bars[static_cast<size_t>(t)];
    const double cleaner = bars[static_cast<size_t>(std::max(0.0, t - stride))];
    steps.push_back(inverse ? diffusion_step(t, cleaner, here, 0)
                            : diffusion_step(t, here, cleaner, eta));
  }
  return steps;
}

// The sample is x_0 + sigma epsilon; `sigmas` has one more than there are timesteps, a 0.
std::vector<SamplerStep> euler_steps(const std::vector<double>& sigmas,
                                     const std::vector<double>& timesteps, bool ancestral) {
  std::vector<SamplerStep> steps;
  for (size_t i = 0; i < timesteps.size(); ++i) {
    const double sigma = sigmas[i], next = sigmas[i + 1];
    // sigma_up^2 = next^2 (sigma^2 - next^2) / sigma^2 leaves sigma_down = next^2 / sigma.
    const double down = ancestral ? next * next / sigma : next;
    steps.push_back({.timestep = timesteps[i],
                     .signal = 1,
                     .spread = sigma,
                     .input_scale = 1 / std::sqrt(sigma * sigma + 1),
                     .clean = 1,
                     .direction = down,
                     .correction = 0,
                     .noise = std::sqrt(std::max(0.0, next * next - down * down))});
  }
  return steps;
}

// With lambda = -log sigma and h the step in it, D = x_0 + (x_0 - previous x_0) h / (2 h_previous)
// in x' = sigma'_t / sigma_t x + alpha' (1 - exp(-h)) D (Lu et al. 2022, algorithm 2). The first
// step has no step before it, and the last one, to sigma 0, has h without end.
std::vector<SamplerStep> solver_steps(const std::vector<double>& sigmas,
                                      const std::vector<double>& timesteps) {
  std::vector<SamplerStep> steps;
  for (size_t i = 0; i < timesteps.size(); ++i) {
    const double sigma = sigmas[i], next = sigmas[i + 1];
    const double alpha = 1 / std::sqrt(sigma * sigma + 1);
    const double alpha_next = 1 / std::sqrt(next * next + 1);
    double correction = 0;
    if (i > 0 && next > 0) {
      const double ratio = std::log(sigma / next) / std::log(sigmas[i - 1] / sigma);
      correction = alpha_next * (1 - next / sigma) * ratio / 2;
    }
    steps.push_back({.timestep = timesteps[i],
                     .signal = alpha,
                     .spread = alpha * sigma,
                     .input_scale = 1,
                     .clean = alpha_next,
                     .direction = alpha_next * next,
                     .correction = correction,
                     .noise = 0});
  }
  return steps;
}

}  // namespace

Method method_named(const std::string& name) {
  return choice_named<Method>("method", name,
                              {{"ddpm", Method::kDDPM},
                               {"ddim", Method::kDDIM},
                               {"ddim_inverse", Method::kDDIMInverse},
                               {"euler", Method::kEuler},
                               {"euler_ancestral", Method::kEulerAncestral},
                               {"dpm++", Method::kDPMSolverPP}});
}

Prediction prediction_named(const std::string& name) {
  return choice_named<Prediction>(
      "prediction", name, {{"epsilon", Prediction::kEpsilon}, {"v", Prediction::kVelocity}});
}

Interpolation interpolation_named(const std::string& name) {
  return choice_named<Interpolation>(
      "interpolation", name, {{"log", Interpolation::kLog}, {"linear", Interpolation::kLinear}});
}

Sampler::Sampler(const NoiseSchedule& schedule, const SamplerConfig& config)
    : prediction_(config.prediction) {
  check_config(config);
  const std::vector<double>& bars = schedule.alphas_cumprod();
  const auto timesteps = timesteps_of(config, static_cast<int64_t>(bars.size()));
  std::vector<double> sigmas;
  for (const double t : timesteps) sigmas.push_back(schedule.sigma(t, config.interpolation));
  sigmas.push_back(0);
  switch (config.method) {
    case Method::kDDPM:
      steps_ = ddpm_steps(bars, timesteps);
      break;
    case Method::kDDIM:
    case Method::kDDIMInverse:
      steps_ = ddim_steps(bars, timesteps, config.method == Method::kDDIMInverse, config.eta);
      break;
    case Method::kEuler:
    case Method::kEulerAncestral:
      steps_ = euler_steps(sigmas, timesteps, config.method == Method::kEulerAncestral);
      // Leading timesteps start below T - 1, where the signal still counts (diffusers).
      initial_scale_ =
          config.spacing == Spacing::kLeading ? std::sqrt(sigmas[0] * sigmas[0] + 1) : sigmas[0];
      break;
    case Method::kDPMSolverPP:
      steps_ = solver_steps(sigmas, timesteps);
      break;
  }
}

const SamplerStep& Sampler::at(int64_t index) const {
  const auto count = static_cast<int64_t>(steps_.size());
  VPD_CHECK(index >= 0 && index < count, "Sampler: step must be in [0, ", count, "), got ", index);
  return steps_[static_cast<size_t>(index)];
}

at::Tensor Sampler::diffuse(const at::Tensor& clean, const at::Tensor& noise, int64_t index) const {
  const SamplerStep& step = at(index);
  VPD_CHECK(
      clean.is_floating_point() && noise.is_floating_point() && noise.sizes() == clean.sizes(),
      "Sampler: clean and noise must be floating point of one shape, got ", clean.dtype(), " ",
      clean.sizes(), " and ", noise.dtype(), " ", noise.sizes());
  return step.signal * clean + step.spread * noise;
}

StepResult Sampler::step(int64_t index, const at::Tensor& x, const at::Tensor& output,
                         const std::optional<at::Tensor>& noise,
                         const std::optional<at::Tensor>& previous) const {
  const SamplerStep& step = at(index);
  VPD_CHECK(x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble,
            "Sampler: x must be float32 or float64, got ", x.dtype());
  VPD_CHECK(output.is_floating_point() && output.sizes() == x.sizes(),
            "Sampler: the network's output must be floating point ", x.sizes(), ", got ",
            output.dtype(), " ", output.sizes());
  VPD_CHECK(step.noise == 0 || (noise && noise->sizes() == x.sizes()), "Sampler: step ", index,
            " needs noise ", x.sizes(), noise ? ", got another shape" : "");
  VPD_CHECK(!previous || previous->sizes() == x.sizes(), "Sampler: x_0 of the step before must be ",
            x.sizes());
  // x_0 and epsilon as sums of x and the output. Of what the network sees, a share alpha is signal
  // and a share beta noise, alpha^2 + beta^2 = 1.
  const double alpha = step.signal * step.input_scale, beta = step.spread * step.input_scale;
  const bool velocity = prediction_ == Prediction::kVelocity;
  const double clean_x = (velocity ? alpha : 1 / alpha) * step.input_scale;
  const double clean_output = velocity ? -beta : -beta / alpha;
  const double epsilon_x = velocity ? beta * step.input_scale : 0;
  const double epsilon_output = velocity ? alpha : 1;

  const at::Tensor out = output.to(x.scalar_type());
  const at::Tensor clean = clean_x * x + clean_output * out;
  at::Tensor sample = (step.clean * clean_x + step.direction * epsilon_x) * x +
                      (step.clean * clean_output + step.direction * epsilon_output) * out;
  if (step.correction != 0 && previous) sample = sample + step.correction * (clean - *previous);
  if (step.noise != 0) sample = sample + step.noise * noise->to(x.scalar_type());
  return {sample, clean};
}

}  // namespace vpd::diffusion
