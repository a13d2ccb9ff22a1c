#include "diffusion/noise_schedule.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "core/constant.h"

namespace vpd::diffusion {

namespace {

NoiseScheduleConfig checked(NoiseScheduleConfig config) {
  VPD_CHECK(config.num_train_timesteps >= 2,
            "NoiseSchedule: num_train_timesteps must be at least 2, got ",
            config.num_train_timesteps);
  VPD_CHECK(0 < config.beta_start && config.beta_start <= config.beta_end && config.beta_end < 1,
            "NoiseSchedule: expected 0 < beta_start <= beta_end < 1, got ", config.beta_start,
            " and ", config.beta_end);
  return config;
}

void check_pair(const char* name, const at::Tensor& x0, const at::Tensor& noise,
                const at::Tensor& t) {
  VPD_CHECK(x0.dim() >= 1 && x0.is_floating_point(), name,
            ": x0 must be floating point [B, ...], got ", x0.dtype(), " ", x0.sizes());
  VPD_CHECK(noise.sizes() == x0.sizes() && noise.is_floating_point(), name,
            ": noise must be floating point ", x0.sizes(), ", got ", noise.dtype(), " ",
            noise.sizes());
  VPD_CHECK(t.dim() == 1 && t.size(0) == x0.size(0), name, ": t must be int64 [", x0.size(0),
            "], got ", t.dtype(), " ", t.sizes());
}

// [B] -> [B, 1, ..] in the dtype and on the device of x
at::Tensor factor(const at::Tensor& values, const at::Tensor& x) {
  std::vector<int64_t> shape(x.dim(), 1);
  shape[0] = values.size(0);
  return values.reshape(shape).to(x.options());
}

}  // namespace

NoiseSchedule::NoiseSchedule(NoiseScheduleConfig config) : config_(checked(config)) {
  const double first = std::sqrt(config_.beta_start), last = std::sqrt(config_.beta_end);
  double product = 1;
  for (int64_t t = 0; t < config_.num_train_timesteps; ++t) {
    const double position =
        static_cast<double>(t) / static_cast<double>(config_.num_train_timesteps - 1);
    const double root = first + (last - first) * position;
    betas_.push_back(root * root);
    product *= 1 - root * root;
    alphas_cumprod_.push_back(product);
  }
}

at::Tensor NoiseSchedule::alpha_bar(const at::Tensor& t) const {
  VPD_CHECK(t.dim() == 1 && t.scalar_type() == at::kLong,
            "NoiseSchedule: t must be int64 [B], got ", t.dtype(), " ", t.sizes());
  // Looking at values would wait for a GPU; there the gather itself asserts.
  if (has_values(t)) {
    const int64_t lowest = t.min().item<int64_t>(), highest = t.max().item<int64_t>();
    VPD_CHECK(lowest >= 0 && highest < config_.num_train_timesteps,
              "NoiseSchedule: timesteps must be in [0, ", config_.num_train_timesteps, "), got ",
              lowest < 0 ? lowest : highest);
  }
  return constant(alphas_cumprod_, t.options().dtype(at::kDouble)).index_select(0, t);
}

at::Tensor NoiseSchedule::snr(const at::Tensor& t) const {
  const at::Tensor bar = alpha_bar(t);
  return bar / (1 - bar);
}

at::Tensor NoiseSchedule::add_noise(const at::Tensor& x0, const at::Tensor& noise,
                                    const at::Tensor& t) const {
  check_pair("add_noise", x0, noise, t);
  const at::Tensor bar = alpha_bar(t);
  return factor(bar.sqrt(), x0) * x0 + factor((1 - bar).sqrt(), x0) * noise;
}

at::Tensor NoiseSchedule::velocity(const at::Tensor& x0, const at::Tensor& noise,
                                   const at::Tensor& t) const {
  check_pair("velocity", x0, noise, t);
  const at::Tensor bar = alpha_bar(t);
  return factor(bar.sqrt(), x0) * noise - factor((1 - bar).sqrt(), x0) * x0;
}

std::vector<int64_t> NoiseSchedule::ddim_timesteps(int64_t steps) const {
  const int64_t total = config_.num_train_timesteps;
  VPD_CHECK(steps >= 1 && steps <= total, "ddim_timesteps: steps must be in [1, ", total, "], got ",
            steps);
  const int64_t ratio = total / steps;
  const int64_t shift =
      (steps - 1) * ratio + 1 < total ? 1 : 0;  // with all timesteps there is no room for it
  std::vector<int64_t> timesteps;
  for (int64_t i = steps - 1; i >= 0; --i) timesteps.push_back(i * ratio + shift);
  return timesteps;
}

DDIMStep NoiseSchedule::ddim_step(const at::Tensor& x, const at::Tensor& epsilon, int64_t t,
                                  int64_t previous, double eta,
                                  const std::optional<at::Tensor>& noise) const {
  VPD_CHECK(t >= 0 && t < config_.num_train_timesteps && previous < t,
            "ddim_step: expected previous < t and t in [0, ", config_.num_train_timesteps,
            "), got previous ", previous, " and t ", t);
  VPD_CHECK(x.is_floating_point() && epsilon.is_floating_point() && epsilon.sizes() == x.sizes(),
            "ddim_step: x and epsilon must be floating point of one shape, got ", x.dtype(), " ",
            x.sizes(), " and ", epsilon.dtype(), " ", epsilon.sizes());
  VPD_CHECK(eta >= 0 && eta <= 1, "ddim_step: eta must be in [0, 1], got ", eta);
  VPD_CHECK(eta == 0 || (noise && noise->sizes() == x.sizes()),
            "ddim_step: eta > 0 needs noise of the shape of x, ", x.sizes());
  const double bar = alphas_cumprod_[static_cast<size_t>(t)];
  const double bar_previous = alphas_cumprod_[static_cast<size_t>(previous < 0 ? 0 : previous)];
  const double sigma = eta * std::sqrt((1 - bar_previous) / (1 - bar) * (1 - bar / bar_previous));
  const at::Tensor x0 = (x - std::sqrt(1 - bar) * epsilon) / std::sqrt(bar);
  at::Tensor sample = std::sqrt(bar_previous) * x0 +
                      std::sqrt(std::max(0.0, 1 - bar_previous - sigma * sigma)) * epsilon;
  if (eta > 0) sample = sample + sigma * *noise;
  return {sample, x0};
}

}  // namespace vpd::diffusion
