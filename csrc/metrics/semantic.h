#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace vpd::metrics {

// All in percent; 0 for an empty set.
struct SemanticScores {
  double pixel_accuracy;  // share of labelled pixels that are right
  double mean_accuracy;   // over classes with a labelled pixel
  double mean_iou;
  double mean_dice;
  double weighted_iou;       // by the classes' shares of the labelled pixels
  std::vector<double> ious;  // by class; NaN for one neither labelled nor predicted
};

// Semantic segmentation: pixels counted by label and prediction over a whole set. All counts are
// integers, so neither order nor the number of threads or processes changes anything.
struct SemanticMetrics {
  int64_t classes;
  int64_t ignore_index;  // pixels of this label do not count
  int64_t n = 0;         // images
  at::Tensor confusion;  // int64 [classes, classes + 1] by label and prediction; last: none

  SemanticMetrics(int64_t classes, int64_t ignore_index);
  // Integers of any width, [H, W] or [n, H, W]. Labels are 0 .. classes-1 or ignore_index;
  // predictions too, and ignore_index then stands for none of the classes.
  void update(const at::Tensor& prediction, const at::Tensor& target);
  void merge(const SemanticMetrics& other);
  // mean_iou and mean_dice: over classes with a labelled pixel (labelled_only), or over those
  // predicted somewhere as well, with 0.
  SemanticScores compute(bool labelled_only) const;
};

}  // namespace vpd::metrics
