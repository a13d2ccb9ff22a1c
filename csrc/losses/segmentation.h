#pragma once
#include "losses/common.h"

namespace vpd::losses {

// What the mean divides by: all pixels, as mmsegmentation before 1.0, or those not ignored.
enum class Average { kAll, kValid };

// "all" or "valid"; throws std::invalid_argument for another word.
Average parse_average(const std::string& word);

// Sums over the pixels of a batch that are not ignored. Those of its parts add up to them.
struct SegmentationSums {
  at::Tensor cross_entropy;  // []: weight of the class times cross-entropy
  at::Tensor correct;        // [] int64: pixels whose label is the first class of the highest logit
  at::Tensor valid;          // [] int64: pixels
};

// Cross-entropy of label maps, in one pass with the interpolation of the logits to their size
// (bilinear, corners not aligned). Interpolated logits exist for one image at a time, on the CPU
// for one row of pixels, in forward and backward.
//   logits [B, K, h, w], target int64 or uint8 [B, H, W] with values 0 .. K-1 or ignore_index,
//   weight of the K classes (default: 1)
SegmentationSums segmentation_sums(const at::Tensor& logits, const at::Tensor& target,
                                   int64_t ignore_index,
                                   const std::optional<std::vector<double>>& weight);

// The same reduced. kNone -> [B, H, W], 0 where ignored. kMean divides by a number of pixels,
// whatever their weights; without a valid pixel it is 0.
at::Tensor segmentation_cross_entropy(const at::Tensor& logits, const at::Tensor& target,
                                      int64_t ignore_index, Average average,
                                      const std::optional<std::vector<double>>& weight,
                                      Reduction reduction);

}  // namespace vpd::losses
