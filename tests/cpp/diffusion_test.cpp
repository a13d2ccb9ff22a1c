// Noise schedules against their formulas.
#include <ATen/ops/allclose.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>

#include "diffusion/noise_schedule.h"

namespace vpd::diffusion {
namespace {

const NoiseScheduleConfig kConfig = {};

// The product of 1 - beta up to t, betas linear in their square root.
double alpha_bar(int64_t t) {
  const double low = std::sqrt(kConfig.beta_start), high = std::sqrt(kConfig.beta_end);
  double product = 1;
  for (int64_t i = 0; i <= t; ++i) {
    const double root = low + (high - low) * static_cast<double>(i) / 999.0;
    product *= 1 - root * root;
  }
  return product;
}

TEST(NoiseSchedule, AlphasAreTheProductOfOneMinusBeta) {
  const NoiseSchedule schedule(kConfig);
  ASSERT_EQ(schedule.alphas_cumprod().size(), 1000u);
  for (const int64_t t : {0, 1, 500, 999}) {
    EXPECT_NEAR(schedule.alphas_cumprod()[static_cast<size_t>(t)], alpha_bar(t), 1e-12);
  }
}

TEST(NoiseSchedule, NoiseIsAddedRowByRow) {
  const NoiseSchedule schedule(kConfig);
  const at::Tensor x = at::randn({2, 3, 4}, at::kDouble), noise = at::randn({2, 3, 4}, at::kDouble);
  const at::Tensor t = at::tensor({10, 900}, at::kLong);
  const at::Tensor noisy = schedule.add_noise(x, noise, t);
  const at::Tensor v = schedule.velocity(x, noise, t);
  for (const int64_t row : {0, 1}) {
    const double a = alpha_bar(t[row].item<int64_t>());
    EXPECT_TRUE(at::allclose(noisy[row], std::sqrt(a) * x[row] + std::sqrt(1 - a) * noise[row]));
    EXPECT_TRUE(at::allclose(v[row], std::sqrt(a) * noise[row] - std::sqrt(1 - a) * x[row]));
    EXPECT_NEAR(schedule.snr(t)[row].item<double>() / (a / (1 - a)), 1, 1e-9);
  }
}

TEST(NoiseSchedule, DdimFollowsTheNoiseItIsTold) {
  const NoiseSchedule schedule(kConfig);
  const at::Tensor x = at::randn({2, 8}, at::kDouble), noise = at::randn({2, 8}, at::kDouble);
  const at::Tensor t = at::tensor({800, 300}, at::kLong), to = at::tensor({200, 20}, at::kLong);
  const at::Tensor there = schedule.ddim(schedule.add_noise(x, noise, t), noise, t, to);
  EXPECT_TRUE(at::allclose(there, schedule.add_noise(x, noise, to)));
}

TEST(NoiseSchedule, SigmaAndTimestepAreInverse) {
  const NoiseSchedule schedule(kConfig);
  const double a = alpha_bar(400);
  EXPECT_NEAR(schedule.sigma(400), std::sqrt((1 - a) / a), 1e-9);
  for (const double t : {0.0, 3.25, 500.5, 999.0}) {
    EXPECT_NEAR(schedule.timestep(schedule.sigma(t)), t, 1e-6);
  }
  EXPECT_EQ(schedule.timestep(1e6), 999);
  EXPECT_EQ(schedule.timestep(1e-6), 0);
}

TEST(NoiseSchedule, BadInputIsRefused) {
  EXPECT_THROW(NoiseSchedule({.num_train_timesteps = 0}), std::invalid_argument);
  const NoiseSchedule schedule(kConfig);
  const at::Tensor x = at::randn({1, 2});
  EXPECT_THROW(schedule.add_noise(x, x, at::tensor({1000}, at::kLong)), std::invalid_argument);
}

}  // namespace
}  // namespace vpd::diffusion
