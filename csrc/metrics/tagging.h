#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace vpd::metrics {

// All in percent; 0 for an empty set. Means over classes are over those that some image has.
struct TagScores {
  double mean_ap;
  double class_precision, class_recall, class_f1;        // macro; f1 of the two means
  double overall_precision, overall_recall, overall_f1;  // micro
  std::vector<double> average_precisions;                // by class; NaN for one no image has
};

// One point for each different score, the highest first.
struct PrecisionRecall {
  at::Tensor precision, recall;  // float64 [n] in [0, 1]
  at::Tensor thresholds;         // float32 [n]: positive is what scores no less
};

// Multi-label classification. Average precision needs every score, so these are kept: 5 bytes for
// each image and class. Neither order nor the number of processes changes anything.
struct TagMetrics {
  int64_t classes;
  int64_t n = 0;                    // images
  std::vector<at::Tensor> scores;   // float32 [b, classes], never written to once here
  std::vector<at::Tensor> targets;  // bool [b, classes]

  explicit TagMetrics(int64_t classes);
  // [b, classes]: floating point, no NaN; bool, or numbers that are 0 or 1.
  void update(const at::Tensor& scores, const at::Tensor& target);
  void merge(const TagMetrics& other);
  at::Tensor all_scores() const;   // float32 [n, classes]
  at::Tensor all_targets() const;  // bool [n, classes]
  // Precision, recall and F1 count what scores more than the threshold.
  TagScores compute(double threshold) const;
  // Of the classes of an image, the percentage among the k with the highest scores (of equal ones
  // the first); mean over images that have one.
  double recall_at(int64_t k) const;
  // Of one class, or of all together for -1; empty without a positive.
  PrecisionRecall curve(int64_t index) const;
};

}  // namespace vpd::metrics
