#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <string>

namespace vpd::metrics {

// Monocular depth (Eigen et al. 2014, section 4.3): each score is taken over the valid pixels of an
// image, then averaged over images. Sums are float64: merged in another order, results agree to
// rounding. Threads change nothing.
struct DepthMetrics {
  static constexpr std::array<const char*, 9> kNames = {
      "delta1", "delta2", "delta3", "abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "silog"};

  double min_depth, max_depth;  // metres; true depths strictly between them are valid
  std::string crop;
  int64_t n = 0;        // images with a valid pixel
  int64_t skipped = 0;  // images without
  std::array<double, kNames.size()> sums = {};

  // crop: "nyu_eigen", "kitti_kb", "kitti_garg", "kitti_eigen" or "none"
  DepthMetrics(double min_depth, double max_depth, std::string crop);
  // Metres, floating point [n, H, W]. Predictions are not cut to the range, but infinite ones
  // become max_depth, and NaN, zero and negative ones min_depth.
  void update(const at::Tensor& prediction, const at::Tensor& target);
  void merge(const DepthMetrics& other);
  double mean(size_t which) const;  // by place in kNames; 0 for an empty set
};

}  // namespace vpd::metrics
