#include "metrics/semantic.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <mutex>

#include "core/check.h"

namespace vpd::metrics {

using at::Tensor;

namespace {

constexpr int64_t kChunk = 4096;  // pixels widened at a time
constexpr int64_t kGrain = 1 << 16;
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

bool is_labels(const Tensor& labels) {
  return (labels.dim() == 2 || labels.dim() == 3) &&
         at::isIntegralType(labels.scalar_type(), false);
}

// On the CPU, in a dtype that ATen's kernels know: wide unsigned ones can only be converted.
Tensor local(const Tensor& labels) {
  const at::ScalarType type = labels.scalar_type();
  const bool rare = type == at::kUInt16 || type == at::kUInt32 || type == at::kUInt64;
  return (rare ? labels.cpu().to(at::kLong) : labels.cpu()).contiguous();
}

void widen(const Tensor& labels, int64_t begin, int64_t count, int64_t* to) {
  AT_DISPATCH_INTEGRAL_TYPES(labels.scalar_type(), "SemanticMetrics", [&] {
    std::copy_n(labels.const_data_ptr<scalar_t>() + begin, count, to);
  });
}

struct Counter {
  int64_t classes, ignore_index;
  const Tensor &prediction, &target;

  int64_t checked(const char* name, int64_t value) const {
    VPD_CHECK(value >= 0 && value < classes, "SemanticMetrics: ", name, " classes must be in [0, ",
              classes, ") or ", ignore_index, " (ignored), got ", value);
    return value;
  }

  void count(int64_t begin, int64_t end, int64_t* to) const {
    std::array<int64_t, kChunk> predicted, labels;
    for (int64_t first = begin; first < end; first += kChunk) {
      const int64_t pixels = std::min(kChunk, end - first);
      widen(prediction, first, pixels, predicted.data());
      widen(target, first, pixels, labels.data());
      for (int64_t i = 0; i < pixels; ++i) {
        if (labels[i] == ignore_index) continue;
        const int64_t p =
            predicted[i] == ignore_index ? classes : checked("prediction", predicted[i]);
        ++to[checked("target", labels[i]) * (classes + 1) + p];
      }
    }
  }
};

// The mean of what is not NaN, in percent.
double mean_percent(const std::vector<double>& values) {
  double sum = 0;
  int64_t count = 0;
  for (const double value : values) {
    if (std::isnan(value)) continue;
    sum += value;
    ++count;
  }
  return count > 0 ? 100.0 * sum / static_cast<double>(count) : 0.0;
}

double ratio(int64_t part, int64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : kNone;
}

}  // namespace

SemanticMetrics::SemanticMetrics(int64_t classes_, int64_t ignore_index_)
    : classes(classes_), ignore_index(ignore_index_) {
  VPD_CHECK(classes >= 1, "SemanticMetrics: expected at least 1 class, got ", classes);
  confusion = at::zeros({classes, classes + 1}, at::kLong);
}

void SemanticMetrics::update(const Tensor& prediction_, const Tensor& target_) {
  VPD_CHECK(is_labels(prediction_),
            "SemanticMetrics: prediction must be integer [H, W] or [n, H, W], got ",
            prediction_.dtype(), " ", prediction_.sizes());
  VPD_CHECK(is_labels(target_) && target_.sizes() == prediction_.sizes(),
            "SemanticMetrics: target must be integer ", prediction_.sizes(), ", got ",
            target_.dtype(), " ", target_.sizes());
  const Tensor prediction = local(prediction_), target = local(target_);
  const Counter counter{classes, ignore_index, prediction, target};
  // Nothing of an update with a wrong class is kept. A new tensor, since copies of this object
  // share the old one.
  Tensor sum = confusion.clone();
  int64_t* sum_ = sum.mutable_data_ptr<int64_t>();
  std::mutex mutex;
  at::parallel_for(0, target.numel(), kGrain, [&](int64_t begin, int64_t end) {
    std::vector<int64_t> own(static_cast<size_t>(sum.numel()));
    counter.count(begin, end, own.data());
    const std::lock_guard lock(mutex);
    for (size_t i = 0; i < own.size(); ++i) sum_[i] += own[i];
  });
  confusion = sum;
  n += target.dim() == 3 ? target.size(0) : 1;
}

void SemanticMetrics::merge(const SemanticMetrics& other) {
  VPD_CHECK(other.classes == classes && other.ignore_index == ignore_index,
            "SemanticMetrics: expected others of ", classes, " classes and ignore_index ",
            ignore_index, ", got ", other.classes, " and ", other.ignore_index);
  n += other.n;
  confusion = confusion + other.confusion;
}

SemanticScores SemanticMetrics::compute(bool labelled_only) const {
  const auto counts = confusion.accessor<int64_t, 2>();
  std::vector<double> ious, dices, accuracies;
  int64_t right = 0, pixels = 0;
  double weighted = 0;
  for (int64_t c = 0; c < classes; ++c) {
    int64_t labelled = 0, predicted = 0;
    for (int64_t k = 0; k <= classes; ++k) labelled += counts[c][k];
    for (int64_t k = 0; k < classes; ++k) predicted += counts[k][c];
    const int64_t both = counts[c][c];
    ious.push_back(ratio(both, labelled + predicted - both));
    dices.push_back(ratio(2 * both, labelled + predicted));
    accuracies.push_back(ratio(both, labelled));
    if (labelled > 0) weighted += static_cast<double>(labelled) * ious.back();
    right += both;
    pixels += labelled;
  }
  std::vector<double> averaged = ious;
  if (labelled_only) {
    for (size_t c = 0; c < averaged.size(); ++c) {
      if (std::isnan(accuracies[c])) averaged[c] = dices[c] = kNone;
    }
  }
  const double whole = static_cast<double>(std::max<int64_t>(pixels, 1));
  SemanticScores scores;
  scores.pixel_accuracy = 100.0 * static_cast<double>(right) / whole;
  scores.mean_accuracy = mean_percent(accuracies);
  scores.mean_iou = mean_percent(averaged);
  scores.mean_dice = mean_percent(dices);
  scores.weighted_iou = 100.0 * weighted / whole;
  for (double& iou : ious) iou *= 100.0;
  scores.ious = std::move(ious);
  return scores;
}

}  // namespace vpd::metrics
