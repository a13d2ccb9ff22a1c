#include "ops/pixel_classes.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/check.h"
#include "ops/cpu/simd.h"

namespace vpd::ops {
namespace {
using at::Tensor;

// One grid of scores, classes beside each other: [h, w, K].
struct Grid {
  const float* scores;
  int64_t height, width;
  bool flipped;
};

// Between which two places of a grid of n a place of a grid of N lies.
struct Between {
  int64_t low, high;
  float weight;  // of high

  Between(int64_t place, int64_t n, int64_t N) {
    const float scale = static_cast<float>(n) / static_cast<float>(N);
    const float at = std::max(0.f, scale * (static_cast<float>(place) + 0.5f) - 0.5f);
    low = std::min(static_cast<int64_t>(at), n - 1);
    high = std::min(low + 1, n - 1);
    weight = at - static_cast<float>(low);
  }
};

// Scores of a pixel from those of the four places around it.
struct Interpolate {
  static VPD_INLINE void run(const float* a, const float* b, const float* c, const float* d,
                             float right, float below, float* scores, int64_t classes) {
    for (int64_t k = 0; k < classes; ++k) {
      const float up = (1 - right) * a[k] + right * b[k], low = (1 - right) * c[k] + right * d[k];
      scores[k] = (1 - below) * up + below * low;
    }
  }
};

// Adds softmax(scores) to sum.
struct AddSoftmax {
  static VPD_INLINE void run(float* scores, float* sum, int64_t classes) {
    float most = scores[0], total = 0;
    for (int64_t k = 1; k < classes; ++k) most = scores[k] > most ? scores[k] : most;
    for (int64_t k = 0; k < classes; ++k) {
      scores[k] = cpu::exp(scores[k] - most);
      total += scores[k];
    }
    for (int64_t k = 0; k < classes; ++k) sum[k] += scores[k] / total;
  }
};

struct Rows {
  static VPD_INLINE void run(const std::vector<Grid>* grids, int64_t classes, int64_t first,
                             int64_t last, int64_t height, int64_t width, float* scores, float* sum,
                             int64_t* found, float* probability) {
    const bool averages = grids->size() > 1 || probability;
    for (int64_t y = first; y < last; ++y) {
      for (int64_t x = 0; x < width; ++x) {
        if (averages) std::fill(sum, sum + classes, 0.f);
        for (const Grid& grid : *grids) {
          const Between row(y, grid.height, height);
          const Between column(grid.flipped ? width - 1 - x : x, grid.width, width);
          const float* up = grid.scores + row.low * grid.width * classes;
          const float* low = grid.scores + row.high * grid.width * classes;
          const int64_t left = column.low * classes, right = column.high * classes;
          Interpolate::run(up + left, up + right, low + left, low + right, column.weight,
                           row.weight, scores, classes);
          if (averages) AddSoftmax::run(scores, sum, classes);
        }
        const float* own = averages ? sum : scores;
        const int64_t best = std::max_element(own, own + classes) - own;
        found[y * width + x] = best;
        if (probability) probability[y * width + x] = own[best] / static_cast<float>(grids->size());
      }
    }
  }
};

}  // namespace

PixelClasses pixel_classes(const std::vector<Tensor>& scores, const std::vector<bool>& flipped,
                           int64_t height, int64_t width, bool probability) {
  VPD_CHECK(!scores.empty() && scores.size() == flipped.size(),
            "pixel_classes: expected scores, and of each whether it is flipped, got ",
            scores.size(), " and ", flipped.size());
  VPD_CHECK(height > 0 && width > 0, "pixel_classes: expected a size of at least 1 x 1, got ",
            height, " x ", width);
  const int64_t classes = scores[0].dim() == 3 ? scores[0].size(0) : 0;
  std::vector<Tensor> held;
  std::vector<Grid> grids;
  for (size_t i = 0; i < scores.size(); ++i) {
    const Tensor& one = scores[i];
    VPD_CHECK(one.dim() == 3 && one.is_floating_point() && one.device().is_cpu() &&
                  one.size(0) == classes && one.numel() > 0,
              "pixel_classes: scores must be floating point [K, h, w] on the CPU with one K, got ",
              one.dtype(), " ", one.sizes(), " on ", one.device(), " after K = ", classes);
    held.push_back(one.detach().to(at::kFloat).permute({1, 2, 0}).contiguous());
    grids.push_back({held.back().const_data_ptr<float>(), one.size(1), one.size(2), flipped[i]});
  }
  PixelClasses found;
  found.classes = at::empty({height, width}, held[0].options().dtype(at::kLong));
  if (probability) found.probability = at::empty({height, width}, held[0].options());
  int64_t* to = found.classes.mutable_data_ptr<int64_t>();
  float* chance = probability ? found.probability.mutable_data_ptr<float>() : nullptr;
  at::parallel_for(0, height, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> work(static_cast<size_t>(2 * classes));
    cpu::run_fastest<Rows>(&grids, classes, begin, end, height, width, work.data(),
                           work.data() + classes, to, chance);
  });
  return found;
}

}  // namespace vpd::ops
