#include "metrics/refer.h"

#include <cmath>

#include "core/check.h"

namespace vpd::metrics {

namespace {

double percent(double part, double whole) { return whole > 0 ? 100.0 * part / whole : 0.0; }

bool is_mask(const at::Tensor& mask) {
  return mask.scalar_type() == at::kBool || mask.scalar_type() == at::kByte;
}

}  // namespace

void ReferMetrics::update(const at::Tensor& prediction, const at::Tensor& target) {
  VPD_CHECK(prediction.dim() == 3 && is_mask(prediction),
            "ReferMetrics: prediction must be bool or uint8 [n, H, W], got ", prediction.dtype(),
            " ", prediction.sizes());
  VPD_CHECK(target.sizes() == prediction.sizes() && is_mask(target),
            "ReferMetrics: target must be bool or uint8 ", prediction.sizes(), ", got ",
            target.dtype(), " ", target.sizes());
  const at::Tensor p = prediction.to(at::kBool), t = target.to(at::kBool);
  // Counted where the masks are; two numbers a sample travel.
  const at::Tensor both = p.logical_and(t).sum({1, 2}).cpu(),
                   any = p.logical_or(t).sum({1, 2}).cpu();
  const auto intersections = both.accessor<int64_t, 1>(), unions = any.accessor<int64_t, 1>();
  for (int64_t i = 0; i < intersections.size(0); ++i) {
    const double iou = unions[i] > 0
                           ? static_cast<double>(intersections[i]) / static_cast<double>(unions[i])
                           : 0.0;
    intersection += intersections[i];
    union_ += unions[i];
    iou_sum += iou;
    for (size_t k = 0; k < kThresholds.size(); ++k) hits[k] += iou >= kThresholds[k];
    ++n;
  }
}

void ReferMetrics::merge(const ReferMetrics& other) {
  n += other.n;
  intersection += other.intersection;
  union_ += other.union_;
  iou_sum += other.iou_sum;
  for (size_t k = 0; k < hits.size(); ++k) hits[k] += other.hits[k];
}

double ReferMetrics::overall_iou() const {
  return percent(static_cast<double>(intersection), static_cast<double>(union_));
}

double ReferMetrics::mean_iou() const { return percent(iou_sum, static_cast<double>(n)); }

double ReferMetrics::precision(size_t threshold) const {
  return percent(static_cast<double>(hits.at(threshold)), static_cast<double>(n));
}

void PickScore::update(const at::Tensor& logits, const at::Tensor& instances, int64_t target,
                       int64_t min_pixels) {
  VPD_CHECK(logits.dim() == 2 && logits.is_floating_point(),
            "PickScore: logits must be floating point [H, W], got ", logits.dtype(), " ",
            logits.sizes());
  VPD_CHECK(instances.sizes() == logits.sizes() && instances.scalar_type() == at::kByte,
            "PickScore: instances must be uint8 ", logits.sizes(), ", got ", instances.dtype(), " ",
            instances.sizes());
  VPD_CHECK(target >= 1 && target <= 255,
            "PickScore: target must be an object id in [1, 255], got ", target);
  VPD_CHECK(min_pixels >= 1, "PickScore: min_pixels must be at least 1, got ", min_pixels);
  const at::Tensor values = logits.to(at::kCPU, at::kDouble).contiguous();
  const at::Tensor ids = instances.cpu().contiguous();
  const double* value = values.const_data_ptr<double>();
  const uint8_t* id = ids.const_data_ptr<uint8_t>();
  std::array<int64_t, 256> pixels = {};
  std::array<double, 256> sums = {};
  for (int64_t i = 0; i < values.numel(); ++i) {
    ++pixels[id[i]];
    sums[id[i]] += value[i];
  }
  VPD_CHECK(pixels[static_cast<size_t>(target)] > 0, "PickScore: no pixel of instances is ", target,
            ", the target");
  size_t best = 0;  // the background: nothing picked
  double best_mean = 0;
  for (size_t k = 1; k < pixels.size(); ++k) {
    if (pixels[k] < min_pixels) continue;
    const double mean = sums[k] / static_cast<double>(pixels[k]);
    VPD_CHECK(!std::isnan(mean), "PickScore: logits contain NaN on object ", k);
    if (best == 0 || mean > best_mean) {
      best = k;
      best_mean = mean;
    }
  }
  ++n;
  picked += best == static_cast<size_t>(target);
}

void PickScore::merge(const PickScore& other) {
  n += other.n;
  picked += other.picked;
}

double PickScore::pick() const {
  return percent(static_cast<double>(picked), static_cast<double>(n));
}

}  // namespace vpd::metrics
