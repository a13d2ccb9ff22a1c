#pragma once
// Mask logits of a network at every pixel of a picture, without ever holding them there.
#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <vector>

#include "ops/cpu/simd.h"

namespace vpd::ops {

// How masks on a coarse grid come to a picture: resized to what the network saw, cut to the part of
// that which the picture fills (at its top left), resized to the picture. Both times bilinear,
// align_corners = false. Heights and widths.
struct MaskView {
  std::array<int64_t, 2> padded, used, size;
};

// The coarse places that one place of the picture is a mean of, along one axis.
struct Taps {
  int64_t count = 0;
  std::array<int64_t, 4> places = {};
  std::array<float, 4> weights = {};
};

struct MaskGrid {
  at::Tensor held;                 // float32 [h, w, Q], or [w, h, Q]
  int64_t width, queries;          // the inner two of `held`
  std::vector<Taps> down, across;  // of the picture's places along the outer two

  // masks: floating point [Q, h, w] on the CPU. columns_first: the picture's pixels are walked
  // through column by column instead of row by row.
  MaskGrid(const at::Tensor& masks, const MaskView& view, bool columns_first);

  int64_t lines() const { return static_cast<int64_t>(down.size()); }
  int64_t length() const { return static_cast<int64_t>(across.size()); }
};

// softmax(logits), float32 [Q, K + 1] on the CPU, checked to go with the masks.
at::Tensor class_chances(const at::Tensor& logits, const at::Tensor& masks);

void check_things(const at::Tensor& chances, const std::vector<bool>& things);

VPD_INLINE void combine(const Taps& taps, const float* from, int64_t stride, int64_t count,
                        float* to) {
  const float* first = from + taps.places[0] * stride;
  for (int64_t i = 0; i < count; ++i) to[i] = taps.weights[0] * first[i];
  for (int64_t t = 1; t < taps.count; ++t) {
    const float* next = from + taps.places[t] * stride;
    const float weight = taps.weights[t];
    for (int64_t i = 0; i < count; ++i) to[i] += weight * next[i];
  }
}

// Calls pixel(number, logits of all queries) for the pixels of lines first ... last - 1.
template <typename Pixel>
struct ForPixels {
  static VPD_INLINE void run(const MaskGrid* grid, const float* masks, const Taps* down,
                             const Taps* across, int64_t length, int64_t first, int64_t last,
                             float* work, const Pixel* pixel) {
    const int64_t queries = grid->queries, line = grid->width * queries;
    float* logits = work + line;
    for (int64_t y = first; y < last; ++y) {
      combine(down[y], masks, line, line, work);
      for (int64_t x = 0; x < length; ++x) {
        combine(across[x], work, queries, queries, logits);
        (*pixel)(y* length + x, logits);
      }
    }
  }
};

template <typename Pixel>
void for_pixels(const MaskGrid& grid, int64_t first, int64_t last, const Pixel& pixel) {
  std::vector<float> work(static_cast<size_t>((grid.width + 1) * grid.queries));
  cpu::run_fastest<ForPixels<Pixel>>(&grid, grid.held.const_data_ptr<float>(), grid.down.data(),
                                     grid.across.data(), grid.length(), first, last, work.data(),
                                     &pixel);
}

}  // namespace vpd::ops
