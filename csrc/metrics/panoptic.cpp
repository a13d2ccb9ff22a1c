#include "metrics/panoptic.h"

#include <utility>

#include "core/check.h"
#include "ops/id_map.h"

namespace vpd::metrics {

using at::Tensor;

namespace {

void check(const char* name, const SegmentMap& map, int64_t classes) {
  VPD_CHECK(map.classes.size() == map.segments.size() && map.crowd.size() == map.segments.size(),
            "PanopticMetrics: ", name, " must have a class and a crowd flag for each of ",
            map.segments.size(), " segments, got ", map.classes.size(), " and ", map.crowd.size());
  for (size_t i = 0; i < map.classes.size(); ++i) {
    VPD_CHECK(map.classes[i] >= 0 && map.classes[i] < classes, "PanopticMetrics: ", name,
              " classes must be in [0, ", classes, "), got ", map.classes[i], " of segment ",
              map.segments[i]);
  }
}

// Pixels by segment of the label (rows) and of the prediction; row and column 0 are void.
struct Overlaps {
  size_t targets, predictions;
  std::vector<int64_t> pixels, target_pixels, prediction_pixels;

  Overlaps(const SegmentMap& prediction, const SegmentMap& target)
      : targets(target.segments.size() + 1),
        predictions(prediction.segments.size() + 1),
        pixels(targets * predictions),
        target_pixels(targets),
        prediction_pixels(predictions) {
    const Tensor p = ops::id_rows(prediction.ids, prediction.segments);
    const Tensor t = ops::id_rows(target.ids, target.segments);
    const int32_t *predicted = p.const_data_ptr<int32_t>(), *labelled = t.const_data_ptr<int32_t>();
    for (int64_t i = 0; i < p.numel(); ++i)
      ++pixels[static_cast<size_t>(labelled[i]) * predictions + static_cast<size_t>(predicted[i])];
    for (size_t row = 0; row < targets; ++row) {
      for (size_t column = 0; column < predictions; ++column) {
        target_pixels[row] += at(row, column);
        prediction_pixels[column] += at(row, column);
      }
    }
  }

  int64_t at(size_t target, size_t prediction) const {
    return pixels[target * predictions + prediction];
  }
};

void check_seen(const char* name, const SegmentMap& map, const std::vector<int64_t>& pixels) {
  for (size_t i = 0; i < map.segments.size(); ++i) {
    VPD_CHECK(pixels[i + 1] > 0, "PanopticMetrics: ", name, " segment ", map.segments[i],
              " is listed but has no pixel");
  }
}

PanopticQuality of_class(int64_t matches, int64_t false_alarms, int64_t misses, double iou) {
  PanopticQuality own;
  if (matches + false_alarms + misses == 0) return own;
  const double m = static_cast<double>(matches);
  const double counted = m + 0.5 * static_cast<double>(false_alarms + misses);
  own.classes = 1;
  own.pq = 100.0 * iou / counted;
  own.sq = matches > 0 ? 100.0 * iou / m : 0.0;
  own.rq = 100.0 * m / counted;
  return own;
}

void add(PanopticQuality& sum, const PanopticQuality& own) {
  sum.pq += own.pq;
  sum.sq += own.sq;
  sum.rq += own.rq;
  sum.classes += own.classes;
}

void average(PanopticQuality& sum) {
  if (sum.classes == 0) return;
  const double count = static_cast<double>(sum.classes);
  sum.pq /= count;
  sum.sq /= count;
  sum.rq /= count;
}

}  // namespace

PanopticMetrics::PanopticMetrics(std::vector<bool> things_)
    : things(std::move(things_)),
      matches(things.size()),
      false_alarms(things.size()),
      misses(things.size()),
      iou(things.size()) {
  VPD_CHECK(!things.empty(), "PanopticMetrics: expected at least 1 class, got 0");
}

void PanopticMetrics::update(const SegmentMap& prediction, const SegmentMap& target) {
  const int64_t classes = static_cast<int64_t>(things.size());
  VPD_CHECK(prediction.ids.sizes() == target.ids.sizes(),
            "PanopticMetrics: prediction must be of the label's size ", target.ids.sizes(),
            ", got ", prediction.ids.sizes());
  check("prediction", prediction, classes);
  check("target", target, classes);
  const Overlaps overlaps(prediction, target);
  check_seen("prediction", prediction, overlaps.prediction_pixels);
  check_seen("target", target, overlaps.target_pixels);

  std::vector<bool> matched(overlaps.predictions);
  for (size_t t = 1; t < overlaps.targets; ++t) {
    if (target.crowd[t - 1]) continue;
    const size_t c = static_cast<size_t>(target.classes[t - 1]);
    bool found = false;
    for (size_t p = 1; p < overlaps.predictions && !found; ++p) {
      const int64_t both = overlaps.at(t, p);
      if (both == 0 || prediction.classes[p - 1] != target.classes[t - 1]) continue;
      const int64_t either = overlaps.target_pixels[t] + overlaps.prediction_pixels[p] - both -
                             overlaps.at(0, p);  // less what lies on void
      if (2 * both <= either) continue;          // above one half at most one can match
      ++matches[c];
      iou[c] += static_cast<double>(both) / static_cast<double>(either);
      found = matched[p] = true;
    }
    if (!found) ++misses[c];
  }
  for (size_t p = 1; p < overlaps.predictions; ++p) {
    if (matched[p]) continue;
    int64_t excused = overlaps.at(0, p);
    for (size_t t = 1; t < overlaps.targets; ++t) {
      if (target.crowd[t - 1] && target.classes[t - 1] == prediction.classes[p - 1])
        excused += overlaps.at(t, p);
    }
    if (2 * excused <= overlaps.prediction_pixels[p])
      ++false_alarms[static_cast<size_t>(prediction.classes[p - 1])];
  }
  ++n;
}

void PanopticMetrics::merge(const PanopticMetrics& other) {
  VPD_CHECK(other.things == things, "PanopticMetrics: both must have the same classes, got ",
            things.size(), " and ", other.things.size(), ", or other things among them");
  n += other.n;
  for (size_t c = 0; c < things.size(); ++c) {
    matches[c] += other.matches[c];
    false_alarms[c] += other.false_alarms[c];
    misses[c] += other.misses[c];
    iou[c] += other.iou[c];
  }
}

PanopticScores PanopticMetrics::compute() const {
  PanopticScores scores;
  for (size_t c = 0; c < things.size(); ++c) {
    const PanopticQuality own = of_class(matches[c], false_alarms[c], misses[c], iou[c]);
    scores.by_class.push_back(own);
    add(scores.all, own);
    add(things[c] ? scores.things : scores.stuff, own);
  }
  average(scores.all);
  average(scores.things);
  average(scores.stuff);
  return scores;
}

}  // namespace vpd::metrics
