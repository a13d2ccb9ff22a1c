#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace vpd::metrics {

// A picture cut into segments.
struct SegmentMap {
  at::Tensor ids;                 // integers [H, W], 0 = no segment (void)
  std::vector<int64_t> segments;  // their ids; every one has a pixel, and every pixel's is here
  std::vector<int64_t> classes;
  std::vector<bool> crowd;  // of labels: regions of several objects
};

// Means over classes, in percent; 0 without classes.
struct PanopticQuality {
  double pq = 0, sq = 0, rq = 0;
  int64_t classes = 0;  // with a match, a miss or a false alarm
};

struct PanopticScores {
  PanopticQuality all, things, stuff;
  std::vector<PanopticQuality> by_class;  // `classes` is 0 for one that is nowhere
};

// Panoptic quality (Kirillov et al. 2019, equation 1) by the rules of COCO's evaluation: segments
// of one class match where IoU > 0.5; a label's void pixels count for nothing, crowd regions are
// neither matched nor missed, and what lies on void and crowd of its class by more than half is no
// false alarm.
struct PanopticMetrics {
  std::vector<bool> things;                            // by class; the others are stuff
  int64_t n = 0;                                       // images
  std::vector<int64_t> matches, false_alarms, misses;  // by class
  std::vector<double> iou;                             // sums over matches

  explicit PanopticMetrics(std::vector<bool> things);
  void update(const SegmentMap& prediction, const SegmentMap& target);
  void merge(const PanopticMetrics& other);
  PanopticScores compute() const;
};

}  // namespace vpd::metrics
