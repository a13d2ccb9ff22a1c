#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace vpd::diffusion {

// How much noise a training timestep means. Defaults: Stable Diffusion, whose betas are linear in
// their square root.
struct NoiseScheduleConfig {
  int64_t num_train_timesteps = 1000;
  double beta_start = 0.00085;
  double beta_end = 0.012;
};

struct DDIMStep {
  at::Tensor sample;  // x at the previous timestep
  at::Tensor predicted_x0;
};

// Forward process x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) epsilon (Ho et al. 2020), t =
// 0 .. T-1, and the deterministic steps back (Song et al. 2021). Tables are double; results have
// the sample's dtype.
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

  // Evenly spaced timesteps, noisiest first, shifted by one as in the original sampler: 10 steps of
  // 1000 are 901, 801, .., 1.
  std::vector<int64_t> ddim_timesteps(int64_t steps) const;
  // One step from t to `previous` (below 0: alpha_bar_0) given the predicted noise. eta 0 is
  // deterministic; eta > 0 adds that share of the posterior's noise and needs `noise`. All tensors
  // have one shape.
  DDIMStep ddim_step(const at::Tensor& x, const at::Tensor& epsilon, int64_t t, int64_t previous,
                     double eta = 0.0, const std::optional<at::Tensor>& noise = std::nullopt) const;

 private:
  NoiseScheduleConfig config_;
  std::vector<double> betas_;
  std::vector<double> alphas_cumprod_;
};

}  // namespace vpd::diffusion
