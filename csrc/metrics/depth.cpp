#include "metrics/depth.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/check.h"

namespace vpd::metrics {

namespace {

constexpr int64_t kBand = 32;  // rows summed by one task, whatever the number of threads

constexpr std::array kCrops = {"nyu_eigen", "kitti_kb", "kitti_garg", "kitti_eigen", "none"};

struct Box {
  int64_t top, bottom, left, right;  // half open
};

Box crop_of(const std::string& name, int64_t height, int64_t width) {
  const auto shares = [&](double top, double bottom, double left, double right) {
    const auto part = [](double share, int64_t size) {
      return static_cast<int64_t>(share * static_cast<double>(size));
    };
    return Box{part(top, height), part(bottom, height), part(left, width), part(right, width)};
  };
  if (name == "nyu_eigen") {
    VPD_CHECK(height == 480 && width == 640,
              "DepthMetrics: crop nyu_eigen is of maps of 480 x 640, got ", height, " x ", width);
    return {45, 471, 41, 601};
  }
  if (name == "kitti_kb") {
    VPD_CHECK(height >= 352 && width >= 1216,
              "DepthMetrics: crop kitti_kb is of maps of 352 x 1216 at least, got ", height, " x ",
              width);
    const int64_t left = (width - 1216) / 2;
    return {height - 352, height, left, left + 1216};
  }
  if (name == "kitti_garg") return shares(0.40810811, 0.99189189, 0.03594771, 0.96405229);
  if (name == "kitti_eigen") return shares(0.3324324, 0.91351351, 0.0359477, 0.96405229);
  return {0, height, 0, width};
}

// Over the valid pixels of a part of an image, d = ln(prediction) - ln(target).
struct PixelSums {
  int64_t n = 0;
  std::array<int64_t, 3> close = {};  // ratio below 1.25, 1.25^2, 1.25^3
  double relative = 0, relative_square = 0, square = 0, d = 0, d_square = 0, d_size = 0;

  void add(double prediction, double target) {
    const double error = prediction - target, log = std::log(prediction / target);
    const double ratio = std::max(target / prediction, prediction / target);
    ++n;
    double limit = 1;
    for (int64_t& count : close) count += ratio < (limit *= 1.25);
    relative += std::abs(error) / target;
    relative_square += error * error / target;
    square += error * error;
    d += log;
    d_square += log * log;
    d_size += std::abs(log);
  }

  void add(const PixelSums& other) {
    n += other.n;
    for (size_t k = 0; k < close.size(); ++k) close[k] += other.close[k];
    relative += other.relative;
    relative_square += other.relative_square;
    square += other.square;
    d += other.d;
    d_square += other.d_square;
    d_size += other.d_size;
  }

  std::array<double, DepthMetrics::kNames.size()> scores() const {
    const auto mean = [&](double sum) { return sum / static_cast<double>(n); };
    const auto share = [&](size_t k) { return mean(static_cast<double>(close[k])); };
    const double variance = mean(d_square) - 0.5 * mean(d) * mean(d);
    return {share(0),
            share(1),
            share(2),
            mean(relative),
            mean(relative_square),
            std::sqrt(mean(square)),
            std::sqrt(mean(d_square)),
            mean(d_size) / std::log(10.0),
            std::sqrt(variance)};
  }
};

}  // namespace

DepthMetrics::DepthMetrics(double min_depth_, double max_depth_, std::string crop_)
    : min_depth(min_depth_), max_depth(max_depth_), crop(std::move(crop_)) {
  VPD_CHECK(min_depth > 0 && max_depth > min_depth && std::isfinite(max_depth),
            "DepthMetrics: expected 0 < min_depth < max_depth, got ", min_depth, " and ",
            max_depth);
  VPD_CHECK(std::find(kCrops.begin(), kCrops.end(), crop) != kCrops.end(),
            "DepthMetrics: crop must be 'nyu_eigen', 'kitti_kb', 'kitti_garg', 'kitti_eigen' or "
            "'none', got '",
            crop, "'");
}

void DepthMetrics::update(const at::Tensor& prediction, const at::Tensor& target) {
  VPD_CHECK(prediction.dim() == 3 && prediction.is_floating_point(),
            "DepthMetrics: prediction must be floating point [n, H, W], got ", prediction.dtype(),
            " ", prediction.sizes());
  VPD_CHECK(target.sizes() == prediction.sizes() && target.is_floating_point(),
            "DepthMetrics: target must be floating point ", prediction.sizes(), ", got ",
            target.dtype(), " ", target.sizes());
  const int64_t images = target.size(0), height = target.size(1), width = target.size(2);
  const Box box = crop_of(crop, height, width);
  const at::Tensor predicted = prediction.to(at::kCPU, at::kDouble).contiguous();
  const at::Tensor truth = target.to(at::kCPU, at::kDouble).contiguous();
  const double *p_ = predicted.const_data_ptr<double>(), *t_ = truth.const_data_ptr<double>();
  // Compared in the precision that the depths came in: 0.001f is more than 0.001.
  const bool wide = target.scalar_type() == at::kDouble;
  const double least = wide ? min_depth : static_cast<float>(min_depth);
  const double most = wide ? max_depth : static_cast<float>(max_depth);
  const int64_t bands = (box.bottom - box.top + kBand - 1) / kBand;
  std::vector<PixelSums> found(static_cast<size_t>(images * bands));
  at::parallel_for(0, images * bands, 4, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      PixelSums sums;
      const int64_t image = task / bands, first = box.top + task % bands * kBand;
      for (int64_t y = first; y < std::min(first + kBand, box.bottom); ++y) {
        const int64_t row = (image * height + y) * width;
        for (int64_t k = row + box.left; k < row + box.right; ++k) {
          if (!(t_[k] > least && t_[k] < most)) continue;
          const double p = std::isinf(p_[k]) ? max_depth : p_[k];
          sums.add(p > 0 ? p : min_depth, t_[k]);
        }
      }
      found[static_cast<size_t>(task)] = sums;
    }
  });
  for (int64_t image = 0; image < images; ++image) {
    PixelSums whole;
    for (int64_t band = 0; band < bands; ++band) {
      whole.add(found[static_cast<size_t>(image * bands + band)]);
    }
    if (whole.n == 0) {
      ++skipped;
      continue;
    }
    const auto scores = whole.scores();
    for (size_t k = 0; k < sums.size(); ++k) sums[k] += scores[k];
    ++n;
  }
}

void DepthMetrics::merge(const DepthMetrics& other) {
  VPD_CHECK(other.crop == crop && other.min_depth == min_depth && other.max_depth == max_depth,
            "DepthMetrics: expected others of crop ", crop, " and depths ", min_depth, " to ",
            max_depth, ", got ", other.crop, " and ", other.min_depth, " to ", other.max_depth);
  n += other.n;
  skipped += other.skipped;
  for (size_t k = 0; k < sums.size(); ++k) sums[k] += other.sums[k];
}

double DepthMetrics::mean(size_t which) const {
  return n > 0 ? sums.at(which) / static_cast<double>(n) : 0.0;
}

}  // namespace vpd::metrics
