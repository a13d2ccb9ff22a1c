#include "metrics/tagging.h"

#include <ATen/Parallel.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/check.h"

namespace vpd::metrics {

using at::Tensor;

namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr int64_t kGrain = 1 << 14;  // values sorted or counted by one thread at least

struct Ranked {
  float score;
  bool positive;
};

std::vector<Ranked> ranked(const float* scores, const bool* targets, int64_t count) {
  std::vector<Ranked> rows(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) rows[i] = {scores[i], targets[i]};
  std::sort(rows.begin(), rows.end(),
            [](const Ranked& a, const Ranked& b) { return a.score > b.score; });
  return rows;
}

// Calls step(right, taken, score) once for each different score: of the `taken` rows that score no
// less, `right` are positive. Equal scores go together, so that their order does not matter.
template <typename Step>
void descend(const std::vector<Ranked>& rows, const Step& step) {
  int64_t right = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    right += rows[i].positive;
    const bool last = i + 1 == rows.size() || rows[i + 1].score != rows[i].score;
    if (last) step(right, static_cast<int64_t>(i) + 1, rows[i].score);
  }
}

// Precision at each threshold, weighted by the recall gained there: no interpolation.
double average_precision(const std::vector<Ranked>& rows) {
  int64_t before = 0;
  double sum = 0;
  descend(rows, [&](int64_t right, int64_t taken, float) {
    sum += static_cast<double>(right - before) * static_cast<double>(right) /
           static_cast<double>(taken);
    before = right;
  });
  return before > 0 ? sum / static_cast<double>(before) : kNone;
}

struct Count {
  int64_t right = 0, predicted = 0, labelled = 0;

  double precision() const { return ratio(right, predicted); }
  double recall() const { return ratio(right, labelled); }

 private:
  static double ratio(int64_t part, int64_t whole) {
    return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0.0;
  }
};

double f1(double precision, double recall) {
  return precision + recall > 0 ? 2 * precision * recall / (precision + recall) : 0.0;
}

Count counted(const float* scores, const bool* targets, int64_t count, double threshold) {
  Count found;
  for (int64_t i = 0; i < count; ++i) {
    const bool predicted = static_cast<double>(scores[i]) > threshold;
    found.predicted += predicted;
    found.labelled += targets[i];
    found.right += predicted && targets[i];
  }
  return found;
}

Tensor checked_scores(const Tensor& scores, int64_t classes) {
  VPD_CHECK(scores.dim() == 2 && scores.size(1) == classes && scores.is_floating_point(),
            "TagMetrics: scores must be floating point [n, ", classes, "], got ", scores.dtype(),
            " ", scores.sizes());
  // A copy, since what is kept must not change when the caller's tensor does.
  Tensor own = at::empty(scores.sizes(), at::kFloat).copy_(scores.detach());
  const float* values = own.const_data_ptr<float>();
  const bool broken =
      std::any_of(values, values + own.numel(), [](float v) { return std::isnan(v); });
  VPD_CHECK(!broken, "TagMetrics: scores must be numbers, got NaN");
  return own;
}

Tensor checked_target(const Tensor& target, const Tensor& scores) {
  VPD_CHECK(target.sizes() == scores.sizes() && !target.is_complex(),
            "TagMetrics: target must be [", scores.size(0), ", ", scores.size(1), "], got ",
            target.dtype(), " ", target.sizes());
  const Tensor wide = target.detach().cpu().to(at::kDouble).contiguous();
  const double* values = wide.const_data_ptr<double>();
  const double* odd =
      std::find_if(values, values + wide.numel(), [](double v) { return v != 0 && v != 1; });
  VPD_CHECK(odd == values + wide.numel(), "TagMetrics: target must be 0 or 1, got ", *odd);
  return wide.to(at::kBool);
}

Tensor joined(const std::vector<Tensor>& parts, int64_t classes, at::ScalarType type) {
  return parts.empty() ? at::empty({0, classes}, type) : at::cat(parts);
}

}  // namespace

TagMetrics::TagMetrics(int64_t classes_) : classes(classes_) {
  VPD_CHECK(classes >= 1, "TagMetrics: expected at least 1 class, got ", classes);
}

void TagMetrics::update(const Tensor& scores_, const Tensor& target_) {
  const Tensor own = checked_scores(scores_, classes), target = checked_target(target_, own);
  scores.push_back(own);
  targets.push_back(target);
  n += own.size(0);
}

void TagMetrics::merge(const TagMetrics& other) {
  VPD_CHECK(other.classes == classes, "TagMetrics: expected others of ", classes, " classes, got ",
            other.classes);
  const std::vector<Tensor> more = other.scores, true_ = other.targets;  // other may be this
  n += other.n;
  scores.insert(scores.end(), more.begin(), more.end());
  targets.insert(targets.end(), true_.begin(), true_.end());
}

Tensor TagMetrics::all_scores() const { return joined(scores, classes, at::kFloat); }

Tensor TagMetrics::all_targets() const { return joined(targets, classes, at::kBool); }

TagScores TagMetrics::compute(double threshold) const {
  const Tensor by_class = all_scores().t().contiguous(), truth = all_targets().t().contiguous();
  const float* values = by_class.const_data_ptr<float>();
  const bool* labels = truth.const_data_ptr<bool>();
  std::vector<double> precisions(static_cast<size_t>(classes), kNone);
  std::vector<Count> counts(static_cast<size_t>(classes));
  at::parallel_for(0, classes, kGrain / std::max<int64_t>(n, 1) + 1, [&](int64_t from, int64_t to) {
    for (int64_t c = from; c < to; ++c) {
      const float* scored = values + c * n;
      const bool* labelled = labels + c * n;
      precisions[c] = average_precision(ranked(scored, labelled, n));
      counts[c] = counted(scored, labelled, n, threshold);
    }
  });
  Count all;
  double ap = 0, precision = 0, recall = 0, present = 0;
  for (int64_t c = 0; c < classes; ++c) {
    all.right += counts[c].right;
    all.predicted += counts[c].predicted;
    all.labelled += counts[c].labelled;
    if (counts[c].labelled == 0) continue;
    ap += precisions[c];
    precision += counts[c].precision();
    recall += counts[c].recall();
    ++present;
  }
  const double share = 100.0 / std::max(present, 1.0);
  for (double& value : precisions) value *= 100.0;
  const double cp = precision * share, cr = recall * share;
  const double op = 100.0 * all.precision(), overall_recall = 100.0 * all.recall();
  return {ap * share, cp, cr, f1(cp, cr), op, overall_recall, f1(op, overall_recall), precisions};
}

double TagMetrics::recall_at(int64_t k) const {
  VPD_CHECK(k >= 1, "TagMetrics: recall is among at least 1 class, got ", k);
  const Tensor all = all_scores(), truth = all_targets();
  std::vector<double> recalls(static_cast<size_t>(n), kNone);
  at::parallel_for(0, n, kGrain / classes + 1, [&](int64_t from, int64_t to) {
    std::vector<int64_t> order(static_cast<size_t>(classes));
    for (int64_t row = from; row < to; ++row) {
      const float* scored = all.const_data_ptr<float>() + row * classes;
      const bool* labelled = truth.const_data_ptr<bool>() + row * classes;
      const int64_t wanted = std::count(labelled, labelled + classes, true);
      if (wanted == 0) continue;
      std::iota(order.begin(), order.end(), 0);
      const auto last = order.begin() + std::min(k, classes);
      std::partial_sort(order.begin(), last, order.end(), [&](int64_t a, int64_t b) {
        return scored[a] != scored[b] ? scored[a] > scored[b] : a < b;
      });
      const int64_t found =
          std::count_if(order.begin(), last, [&](int64_t c) { return labelled[c]; });
      recalls[row] = static_cast<double>(found) / static_cast<double>(wanted);
    }
  });
  double sum = 0, rows = 0;
  for (const double recall : recalls) {
    if (std::isnan(recall)) continue;
    sum += recall;
    ++rows;
  }
  return 100.0 * sum / std::max(rows, 1.0);
}

PrecisionRecall TagMetrics::curve(int64_t index) const {
  VPD_CHECK(index >= -1 && index < classes, "TagMetrics: class must be in [0, ", classes,
            ") or -1 (all), got ", index);
  Tensor values = all_scores(), truth = all_targets();
  if (index >= 0) {
    values = values.select(1, index).contiguous();
    truth = truth.select(1, index).contiguous();
  }
  const std::vector<Ranked> rows =
      ranked(values.const_data_ptr<float>(), truth.const_data_ptr<bool>(), values.numel());
  const int64_t wanted =
      std::count_if(rows.begin(), rows.end(), [](const Ranked& row) { return row.positive; });
  std::vector<double> precision, recall;
  std::vector<float> thresholds;
  if (wanted > 0) {
    descend(rows, [&](int64_t right, int64_t taken, float score) {
      precision.push_back(static_cast<double>(right) / static_cast<double>(taken));
      recall.push_back(static_cast<double>(right) / static_cast<double>(wanted));
      thresholds.push_back(score);
    });
  }
  return {at::tensor(precision, at::kDouble), at::tensor(recall, at::kDouble),
          at::tensor(thresholds, at::kFloat)};
}

}  // namespace vpd::metrics
