#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>

namespace vpd::metrics {

// Referring segmentation, one sample per (object, sentence). Masks are counted when they come; only
// sums are kept.
struct ReferMetrics {
  static constexpr std::array<double, 5> kThresholds = {0.5, 0.6, 0.7, 0.8, 0.9};

  int64_t n = 0;
  int64_t intersection = 0;  // pixels, over all samples
  int64_t union_ = 0;
  double iou_sum = 0;                // a sample with an empty union counts as IoU 0
  std::array<int64_t, 5> hits = {};  // samples with IoU >= threshold

  // prediction and target: bool or uint8 (0 = outside) [n, H, W]
  void update(const at::Tensor& prediction, const at::Tensor& target);
  void merge(const ReferMetrics& other);
  // In percent; 0 for an empty set.
  double overall_iou() const;
  double mean_iou() const;
  double precision(size_t threshold) const;
};

// How often the object with the highest mean logit is the one referred to: grounding apart from
// mask quality.
struct PickScore {
  int64_t n = 0;
  int64_t picked = 0;

  // logits floating point [H, W] (object minus background), instances uint8 [H, W] (0 = no object),
  // target: id of the object referred to. Objects with fewer than min_pixels visible pixels are no
  // candidates; a target among them is missed.
  void update(const at::Tensor& logits, const at::Tensor& instances, int64_t target,
              int64_t min_pixels);
  void merge(const PickScore& other);
  double pick() const;  // percent; 0 for an empty set
};

}  // namespace vpd::metrics
