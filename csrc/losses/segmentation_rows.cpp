#include <ATen/Parallel.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/fake.h"
#include "losses/segmentation_pixels.h"
#include "ops/cpu/matmul.h"

// The classes of a pixel lie side by side, as head and convolution leave them (channels_last), and
// are padded to whole vectors. Interpolation is separable: two rows of the logits are blended into
// one, [w, classes], and each pixel blends two of its columns. The row and one pixel's classes are
// all that is held besides inputs and outputs.

namespace vpd::losses {

using at::Tensor;

namespace {

using ops::cpu::Buffer;
using ops::cpu::combine_lanes;
using ops::cpu::Vector;

constexpr float kNowhere = -1e30f;  // stands for minus infinity, but times 0 it is 0
constexpr float kLowest = 80;       // shares below e^-80 count as that: subnormal ones are slow
constexpr int64_t kGrain = 1 << 16;

// Where the places of an axis of `out` lie among those of one of `in`: from `low` towards `high`.
struct Axis {
  std::vector<int64_t> low, high;
  std::vector<float> fraction;

  Axis(int64_t in, int64_t out) : low(out), high(out), fraction(out) {
    const double step = static_cast<double>(in) / static_cast<double>(out);
    for (int64_t i = 0; i < out; ++i) {
      // Centre to centre; with one size on both sides, i.
      const double at = std::max(0.0, (static_cast<double>(i) + 0.5) * step - 0.5);
      low[i] = std::min(static_cast<int64_t>(at), in - 1);
      high[i] = std::min(low[i] + 1, in - 1);
      fraction[i] = high[i] > low[i] ? static_cast<float>(at - static_cast<double>(low[i])) : 0;
    }
  }
};

// One thread's buffers.
struct Scratch {
  Buffer<float> row, grad_row, pixel;

  Scratch(int64_t width, int64_t stride)
      : row(width * stride), grad_row(width * stride), pixel(stride) {}
};

VPD_INLINE void blend(const float* __restrict a, const float* __restrict b, float fraction,
                      float* __restrict to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    to[i] = (1 - fraction) * a[i] + fraction * b[i];
  }
}

int64_t stride_of(const Pixels& pixels) { return ops::cpu::padded<float>(pixels.logits.size(1)); }

// [B, h, w, stride]
Tensor padded_logits(const Tensor& logits, int64_t stride) {
  return at::constant_pad_nd(logits.permute({0, 2, 3, 1}).clamp_min(kNowhere),
                             {0, stride - logits.size(1)}, kNowhere)
      .contiguous();
}

struct Plan {
  int64_t batch, classes, stride, height, width;  // of the logits; stride: of a pixel's classes
  int64_t rows, columns;                          // of the labels
  Axis down, across;
  Tensor logits;  // [B, h, w, stride]
  Tensor labels, weights;
  const float* logit;
  const int64_t* label;
  const float* weight;
  int64_t ignore_index;

  explicit Plan(const Pixels& pixels)
      : batch(pixels.logits.size(0)),
        classes(pixels.logits.size(1)),
        stride(stride_of(pixels)),
        height(pixels.logits.size(2)),
        width(pixels.logits.size(3)),
        rows(pixels.target.size(1)),
        columns(pixels.target.size(2)),
        down(height, rows),
        across(width, columns),
        logits(padded_logits(pixels.logits, stride)),
        labels(pixels.target.contiguous()),
        weights(pixels.weight.contiguous()),
        logit(logits.const_data_ptr<float>()),
        label(labels.const_data_ptr<int64_t>()),
        weight(weights.const_data_ptr<float>()),
        ignore_index(pixels.ignore_index) {}

  int64_t row_size() const { return width * stride; }

  // The logits of a row of labels, [w, stride].
  VPD_INLINE const float* row(int64_t image, int64_t y, Scratch* scratch) const {
    const float* top = logit + image * height * row_size();
    const float* low = top + down.low[y] * row_size();
    if (down.fraction[y] == 0) return low;
    blend(low, top + down.high[y] * row_size(), down.fraction[y], scratch->row.get(), row_size());
    return scratch->row.get();
  }

  // Those of one pixel of it, [stride].
  VPD_INLINE const float* pixel(const float* row, int64_t x, Scratch* scratch) const {
    const float* low = row + across.low[x] * stride;
    if (across.fraction[x] == 0) return low;
    blend(low, row + across.high[x] * stride, across.fraction[x], scratch->pixel.get(), stride);
    return scratch->pixel.get();
  }
};

template <int kBytes>
VPD_INLINE float highest(const float* z, int64_t count) {
  using V = typename Vector<float, kBytes>::type;
  constexpr int64_t kLanes = Vector<float, kBytes>::kLanes;
  V best = *reinterpret_cast<const V*>(z);
  for (int64_t c = kLanes; c < count; c += kLanes) {
    const V next = *reinterpret_cast<const V*>(z + c);
    best = next > best ? next : best;
  }
  return combine_lanes<float, kBytes, true>(best);
}

// The sum of e^(z - top), NaN if any z is or top is infinite.
template <int kBytes>
VPD_INLINE float sum_exp(const float* z, int64_t count, float top) {
  using V = typename Vector<float, kBytes>::type;
  constexpr int64_t kLanes = Vector<float, kBytes>::kLanes;
  float sums[kLanes] = {};
  for (int64_t c = 0; c < count; c += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const float below = z[c + lane] - top;
      sums[lane] += ops::cpu::exp(below, kLowest) + (below - below);
    }
  }
  return combine_lanes<float, kBytes, false>(*reinterpret_cast<const V*>(sums));
}

// Losses of one row of labels.
template <int kBytes>
struct LossRow {
  static VPD_INLINE void run(const Plan* plan, int64_t image, int64_t y, float* loss,
                             float* log_sum, int64_t* correct, Scratch* scratch) {
    const float* row = plan->row(image, y, scratch);
    const int64_t* labels = plan->label + (image * plan->rows + y) * plan->columns;
    int64_t hits = 0;
    for (int64_t x = 0; x < plan->columns; ++x) {
      const int64_t label = labels[x];
      if (label == plan->ignore_index) {
        loss[x] = 0;
        log_sum[x] = 0;
        continue;
      }
      const float* z = plan->pixel(row, x, scratch);
      const float top = highest<kBytes>(z, plan->stride);
      const float above = std::log(sum_exp<kBytes>(z, plan->stride, top));
      log_sum[x] = top + above;
      loss[x] = plan->weight[label] * ((top - z[label]) + above);
      if (z[label] == top) {  // alike before it would be the choice instead
        int earlier = 0;
        for (int64_t c = 0; c < label; ++c) {
          earlier |= z[c] == top;
        }
        hits += earlier == 0;
      }
    }
    *correct = hits;
  }
};

// What all rows of labels between the source row and the next one owe to both.
template <int kBytes>
struct GradientRows {
  static VPD_INLINE void run(const Plan* plan, int64_t image, int64_t source, int64_t begin,
                             int64_t end, const float* grads, const float* log_sums, float* to,
                             Scratch* scratch) {
    float* grad_row = scratch->grad_row.get();
    for (int64_t y = begin; y < end; ++y) {
      const float* row = plan->row(image, y, scratch);
      std::fill_n(grad_row, plan->row_size(), 0.f);
      const int64_t first = (image * plan->rows + y) * plan->columns;
      for (int64_t x = 0; x < plan->columns; ++x) {
        const int64_t label = plan->label[first + x];
        if (label == plan->ignore_index) continue;
        const float* __restrict z = plan->pixel(row, x, scratch);
        const float log_sum = log_sums[first + x], fraction = plan->across.fraction[x];
        const float scale = grads[first + x] * plan->weight[label];
        const float near = (1 - fraction) * scale, far = fraction * scale;
        float* __restrict low = grad_row + plan->across.low[x] * plan->stride;
        float* __restrict high = grad_row + plan->across.high[x] * plan->stride;
        if (fraction == 0) {
          for (int64_t c = 0; c < plan->stride; ++c) {
            const float below = z[c] - log_sum;
            low[c] += scale * (ops::cpu::exp(below, kLowest) + (below - below));
          }
        } else {
          for (int64_t c = 0; c < plan->stride; ++c) {
            const float below = z[c] - log_sum;
            const float share = ops::cpu::exp(below, kLowest) + (below - below);
            low[c] += near * share;
            high[c] += far * share;
          }
          high[label] -= far;
        }
        low[label] -= near;
      }
      const float fraction = plan->down.fraction[y];
      float* __restrict low = to + (image * plan->height + source) * plan->row_size();
      for (int64_t i = 0; i < plan->row_size(); ++i) {
        low[i] += (1 - fraction) * grad_row[i];
      }
      if (fraction != 0) {
        float* __restrict high = low + plan->row_size();
        for (int64_t i = 0; i < plan->row_size(); ++i) {
          high[i] += fraction * grad_row[i];
        }
      }
    }
  }
};

}  // namespace

PixelLosses losses_by_row(const Pixels& pixels) {
  if (is_fake(pixels.logits)) {
    const Tensor held = padded_logits(pixels.logits, stride_of(pixels));
    const Tensor loss = at::empty(pixels.target.sizes(), pixels.logits.options());
    return {loss, at::empty_like(loss), at::zeros({}, pixels.target.options())};
  }
  const Plan plan(pixels);
  Tensor loss = at::empty(pixels.target.sizes(), pixels.logits.options());
  Tensor log_sum = at::empty(pixels.target.sizes(), pixels.logits.options());
  Tensor correct = at::empty({plan.batch, plan.rows}, pixels.target.options());
  float *loss_ = loss.mutable_data_ptr<float>(), *log_sum_ = log_sum.mutable_data_ptr<float>();
  int64_t* correct_ = correct.mutable_data_ptr<int64_t>();
  const int64_t grain = kGrain / (plan.columns * plan.stride) + 1;
  at::parallel_for(0, plan.batch * plan.rows, grain, [&](int64_t begin, int64_t end) {
    Scratch scratch(plan.width, plan.stride);
    for (int64_t row = begin; row < end; ++row) {
      ops::cpu::run_widest<LossRow>(&plan, row / plan.rows, row % plan.rows,
                                    loss_ + row * plan.columns, log_sum_ + row * plan.columns,
                                    correct_ + row, &scratch);
    }
  });
  return {loss, log_sum, correct.sum()};
}

Tensor gradient_by_row(const Pixels& pixels, const Tensor& log_sum, const Tensor& grad_) {
  if (is_fake(pixels.logits)) {
    const Tensor held = padded_logits(pixels.logits, stride_of(pixels));
    return at::empty_like(held).narrow(3, 0, pixels.logits.size(1)).permute({0, 3, 1, 2});
  }
  const Plan plan(pixels);
  const Tensor grad = grad_.contiguous();
  Tensor to =
      at::zeros({plan.batch, plan.height, plan.width, plan.stride}, pixels.logits.options());
  const float *grads = grad.const_data_ptr<float>(), *log_sums = log_sum.const_data_ptr<float>();
  float* to_ = to.mutable_data_ptr<float>();
  // Of each source row, the labels' rows from it to the next. They add to both, so first all even
  // source rows are done, then all odd ones: no two threads meet, and the order of additions is
  // always the same.
  std::vector<int64_t> first(plan.height + 1);
  for (int64_t source = 0; source <= plan.height; ++source) {
    first[source] = std::lower_bound(plan.down.low.begin(), plan.down.low.end(), source) -
                    plan.down.low.begin();
  }
  for (int64_t odd = 0; odd < 2; ++odd) {
    const int64_t sources = (plan.height + 1 - odd) / 2;
    at::parallel_for(0, plan.batch * sources, 1, [&](int64_t begin, int64_t end) {
      Scratch scratch(plan.width, plan.stride);
      for (int64_t task = begin; task < end; ++task) {
        const int64_t source = task % sources * 2 + odd;
        ops::cpu::run_widest<GradientRows>(&plan, task / sources, source, first[source],
                                           first[source + 1], grads, log_sums, to_, &scratch);
      }
    });
  }
  return to.narrow(3, 0, plan.classes).permute({0, 3, 1, 2});
}

}  // namespace vpd::losses
