#include "ops/mask_inference.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <map>
#include <mutex>

#include "core/check.h"

namespace vpd::ops {
namespace {
using at::Tensor;

constexpr int64_t kBandValues = 1 << 22;  // floats of a band of semantic scores

struct Claims {  // of pixels, by query
  std::vector<int64_t> won, inside, both;
  explicit Claims(int64_t queries) : won(queries), inside(queries), both(queries) {}
};

// Gives a pixel to the best query, the first of equals. Values are not negative, so their bits are
// ordered as they are; whole numbers are what compilers find the largest of with vectors.
struct Claim {
  int32_t queries;
  const float* scores;
  int32_t *values, *inside;
  int64_t *won, *both;
  int32_t* owner;  // of each pixel: the query, or -1 where its s < 0.5

  VPD_INLINE void operator()(int64_t pixel, const float* logits) const {
    // Members could change with what is stored through the pointers, as far as compilers know.
    const int32_t count = queries;
    int32_t *own = values, *in = inside, most = 0;
    const float* score = scores;
    for (int32_t q = 0; q < count; ++q) {
      const int32_t value = std::bit_cast<int32_t>(score[q] * cpu::sigmoid(logits[q]));
      own[q] = value;
      most = value > most ? value : most;
      in[q] += logits[q] >= 0;
    }
    int32_t best = count - 1;
    for (int32_t q = 0; q < count; ++q) {
      const int32_t place = own[q] == most ? q : count - 1;
      best = place < best ? place : best;
    }
    const bool belongs = logits[best] >= 0;
    ++won[best];
    both[best] += belongs;
    owner[pixel] = belongs ? best : -1;
  }
};

Claims claim(const MaskGrid& grid, const std::vector<float>& scores, int32_t* owner) {
  Claims all(grid.queries);
  std::mutex mutex;
  at::parallel_for(0, grid.lines(), 1, [&](int64_t begin, int64_t end) {
    Claims own(grid.queries);
    std::vector<int32_t> values(scores.size()), inside(scores.size());
    const Claim pixel{static_cast<int32_t>(grid.queries),
                      scores.data(),
                      values.data(),
                      inside.data(),
                      own.won.data(),
                      own.both.data(),
                      owner};
    for_pixels(grid, begin, end, pixel);
    const std::lock_guard lock(mutex);
    for (size_t q = 0; q < scores.size(); ++q) {
      all.won[q] += own.won[q];
      all.inside[q] += inside[q];
      all.both[q] += own.both[q];
    }
  });
  return all;
}

struct StoreSigmoid {
  int64_t queries, first;  // the pixel that stands at the beginning
  float* to;

  VPD_INLINE void operator()(int64_t pixel, const float* logits) const {
    float* own = to + (pixel - first) * queries;
    for (int64_t q = 0; q < queries; ++q) own[q] = cpu::sigmoid(logits[q]);
  }
};

// [(last - first) W, K]
Tensor band(const MaskGrid& grid, const Tensor& classes, int64_t first, int64_t last) {
  const int64_t length = grid.length();
  const Tensor shares = at::empty({(last - first) * length, grid.queries}, grid.held.options());
  const StoreSigmoid pixel{grid.queries, first * length, shares.mutable_data_ptr<float>()};
  at::parallel_for(first, last, 1,
                   [&](int64_t begin, int64_t end) { for_pixels(grid, begin, end, pixel); });
  return at::matmul(shares, classes);
}

}  // namespace

PanopticSegments panoptic_inference(const Tensor& logits, const Tensor& masks, const MaskView& view,
                                    const std::vector<bool>& things, double min_score,
                                    double min_overlap) {
  const Tensor chances = class_chances(logits, masks);
  check_things(chances, things);
  VPD_CHECK(view.size[0] * view.size[1] <= std::numeric_limits<int32_t>::max(),
            "panoptic_inference: expected a picture of less than 2^31 pixels, got ",
            at::IntArrayRef(view.size));
  const int64_t classes = chances.size(1) - 1;
  const auto [highest, likeliest] = chances.max(-1);
  const auto chance = highest.accessor<float, 1>();
  const auto category = likeliest.accessor<int64_t, 1>();
  std::vector<int64_t> kept;
  std::vector<float> scores;
  for (int64_t q = 0; q < chances.size(0); ++q) {
    if (category[q] == classes || !(static_cast<double>(chance[q]) > min_score)) continue;
    kept.push_back(q);
    scores.push_back(chance[q]);
  }
  PanopticSegments found;
  found.ids = at::zeros({view.size[0], view.size[1]}, chances.options().dtype(at::kInt));
  const MaskGrid grid(masks.index_select(0, at::tensor(kept, at::kLong)), view, false);
  if (kept.empty()) return found;
  int32_t* ids = found.ids.mutable_data_ptr<int32_t>();
  const Claims claims = claim(grid, scores, ids);

  std::vector<int32_t> id_of(kept.size());
  std::map<int64_t, int32_t> stuff;  // class -> its segment's id
  for (size_t q = 0; q < kept.size(); ++q) {
    const double left = static_cast<double>(claims.won[q]) /
                        static_cast<double>(std::max<int64_t>(claims.inside[q], 1));
    if (claims.both[q] == 0 || left < min_overlap) continue;
    const int64_t own = category[kept[q]];
    const double score = chance[kept[q]];
    const auto before = stuff.find(own);
    if (before != stuff.end()) {
      id_of[q] = before->second;
      PanopticSegment& segment = found.segments[static_cast<size_t>(before->second) - 1];
      segment.score = std::max(segment.score, score);
      continue;
    }
    id_of[q] = static_cast<int32_t>(found.segments.size()) + 1;
    found.segments.push_back({id_of[q], own, score});
    if (!things[static_cast<size_t>(own)]) stuff[own] = id_of[q];
  }
  const int64_t pixels = found.ids.numel();
  for (int64_t i = 0; i < pixels; ++i) ids[i] = ids[i] < 0 ? 0 : id_of[static_cast<size_t>(ids[i])];
  return found;
}

Tensor semantic_scores(const Tensor& logits, const Tensor& masks, const MaskView& view,
                       int64_t first, int64_t last) {
  const Tensor chances = class_chances(logits, masks);
  VPD_CHECK(0 <= first && first < last && last <= view.size[0],
            "semantic_scores: expected rows within 0 ... ", view.size[0], ", got ", first, " ... ",
            last);
  const MaskGrid grid(masks, view, false);
  const int64_t classes = chances.size(1) - 1;
  return band(grid, chances.narrow(1, 0, classes), first, last)
      .view({last - first, view.size[1], classes});
}

Tensor semantic_inference(const Tensor& logits, const Tensor& masks, const MaskView& view) {
  const Tensor chances = class_chances(logits, masks);
  const MaskGrid grid(masks, view, false);
  const int64_t classes = chances.size(1) - 1;
  const Tensor own = chances.narrow(1, 0, classes);
  const Tensor found = at::empty({view.size[0], view.size[1]}, own.options().dtype(at::kLong));
  const int64_t row = view.size[1] * std::max(grid.queries, classes);
  const int64_t rows = std::max<int64_t>(kBandValues / std::max<int64_t>(row, 1), 1);
  for (int64_t first = 0; first < view.size[0]; first += rows) {
    const int64_t last = std::min(first + rows, view.size[0]);
    found.slice(0, first, last)
        .copy_(band(grid, own, first, last).argmax(-1).view({last - first, view.size[1]}));
  }
  return found;
}

}  // namespace vpd::ops
