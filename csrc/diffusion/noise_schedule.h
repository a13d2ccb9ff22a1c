#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace vpd::diffusion {

// How much noise a training timestep means. Defaults: Stable Diffusion, whose betas are linear in
// their square root.
struct NoiseScheduleConfig {
  int64_t num_train_timesteps = 1000;
  double beta_start = 0.00085;
  double beta_end = 0.012;
};

// Between two timesteps sigma is interpolated in its logarithm (k-diffusion) or plainly
// (diffusers).
enum class Interpolation { kLog, kLinear };

// Forward process x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) epsilon (Ho et al. 2020), t =
// 0 .. T-1. Tables are double; results have the sample's dtype.
class NoiseSchedule {
 public:
  explicit NoiseSchedule(NoiseScheduleConfig config);

  const NoiseScheduleConfig& config() const { return config_; }
  const std::vector<double>& betas() const { return betas_; }
  const std::vector<double>& alphas_cumprod() const { return alphas_cumprod_; }

  // t int64 [B], values in [0, T); x0 and noise [B, ...]
  at::Tensor alpha_bar(const at::Tensor& t) const;  // float64 [B] on t's device
  at::Tensor snr(const at::Tensor& t) const;        // alpha_bar / (1 - alpha_bar), float64 [B]
  at::Tensor add_noise(const at::Tensor& x0, const at::Tensor& noise, const at::Tensor& t) const;
  // v = sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x0 (Salimans and Ho 2022)
  at::Tensor velocity(const at::Tensor& x0, const at::Tensor& noise, const at::Tensor& t) const;
  // Each row from timestep t to its timestep `to`, int64 [B], along DDIM's deterministic way: x_0
  // follows from the sample and the noise in it as the network says, and meets that noise again
  // (Song et al. 2021, equation 12 without noise of its own).
  at::Tensor ddim(const at::Tensor& x, const at::Tensor& epsilon, const at::Tensor& t,
                  const at::Tensor& to) const;

  // sigma = sqrt((1 - alpha_bar) / alpha_bar), the noise beside a signal of 1, of a timestep in
  // [0, T - 1] that need not be whole; and the timestep of a sigma, found by the logarithm, nearest
  // end if it lies outside.
  double sigma(double t, Interpolation interpolation = Interpolation::kLog) const;
  double timestep(double sigma) const;

 private:
  NoiseScheduleConfig config_;
  std::vector<double> betas_;
  std::vector<double> alphas_cumprod_;
  std::vector<double> log_sigmas_;  // rising
};

}  // namespace vpd::diffusion
