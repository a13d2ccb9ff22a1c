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
    log_sigmas_.push_back(0.5 * std::log((1 - product) / product));
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

at::Tensor NoiseSchedule::ddim(const at::Tensor& x, const at::Tensor& epsilon, const at::Tensor& t,
                               const at::Tensor& to) const {
  check_pair("ddim", x, epsilon, t);
  check_pair("ddim", x, epsilon, to);
  const at::Tensor from = alpha_bar(t), bar = alpha_bar(to);
  const at::Tensor signal = (bar / from).sqrt();
  return factor(signal, x) * x + factor((1 - bar).sqrt() - signal * (1 - from).sqrt(), x) * epsilon;
}

double NoiseSchedule::sigma(double t, Interpolation interpolation) const {
  const auto last = static_cast<double>(config_.num_train_timesteps - 1);
  VPD_CHECK(t >= 0 && t <= last, "NoiseSchedule: sigma needs a timestep in [0, ", last, "], got ",
            t);
  const double below = std::floor(t), share = t - below;
  const double low = log_sigmas_[static_cast<size_t>(below)];
  if (share == 0) return std::exp(low);
  const double high = log_sigmas_[static_cast<size_t>(below) + 1];
  return interpolation == Interpolation::kLog ? std::exp(low + share * (high - low))
                                              : std::lerp(std::exp(low), std::exp(high), share);
}

double NoiseSchedule::timestep(double sigma) const {
  VPD_CHECK(sigma > 0, "NoiseSchedule: sigma must be positive, got ", sigma);
  const double wanted = std::log(sigma);
  const auto above = std::upper_bound(log_sigmas_.begin(), log_sigmas_.end(), wanted);
  if (above == log_sigmas_.begin()) return 0;
  if (above == log_sigmas_.end()) return static_cast<double>(config_.num_train_timesteps - 1);
  const double low = *(above - 1);
  return static_cast<double>(above - 1 - log_sigmas_.begin()) + (wanted - low) / (*above - low);
}

}  // namespace vpd::diffusion
