#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace vpd::ops {

struct PixelClasses {
  at::Tensor classes;      // int64 [H, W]
  at::Tensor probability;  // float32 [H, W] of that class; undefined if not asked for
};

// The most likely class of each pixel of a picture, from class scores on coarser or finer grids:
// each is interpolated bilinearly (align_corners = false) to the picture's size and becomes
// probabilities by softmax, which are averaged. Pixel after pixel, so that no score or probability
// is ever held at the picture's size.
//
// scores: floating point [K, h, w], on the CPU; flipped: whether the one of the same place is of
// the mirrored picture.
PixelClasses pixel_classes(const std::vector<at::Tensor>& scores, const std::vector<bool>& flipped,
                           int64_t height, int64_t width, bool probability);

}  // namespace vpd::ops
