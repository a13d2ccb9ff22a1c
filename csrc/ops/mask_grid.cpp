#include "ops/mask_grid.h"

#include <ATen/ops/isfinite.h>
#include <ATen/ops/softmax.h>

#include <algorithm>

#include "core/check.h"

namespace vpd::ops {
namespace {

// The two places of a grid of `from` between which a place of a grid of `to` lies.
Taps between(int64_t place, int64_t from, int64_t to) {
  const float scale = static_cast<float>(from) / static_cast<float>(to);
  const float at = std::max(0.f, scale * (static_cast<float>(place) + 0.5f) - 0.5f);
  const int64_t low = std::min(static_cast<int64_t>(at), from - 1);
  const float weight = at - static_cast<float>(low);
  return {2, {low, std::min(low + 1, from - 1), 0, 0}, {1 - weight, weight, 0, 0}};
}

void add(Taps& taps, int64_t place, float weight) {
  if (weight == 0) return;
  for (int64_t t = 0; t < taps.count; ++t) {
    if (taps.places[t] == place) {
      taps.weights[t] += weight;
      return;
    }
  }
  taps.places[taps.count] = place;
  taps.weights[taps.count++] = weight;
}

// Both resizes at once: the picture's places as means of those of the cut, and these of the grid's.
std::vector<Taps> axis(int64_t grid, int64_t padded, int64_t used, int64_t size) {
  std::vector<Taps> found(static_cast<size_t>(size));
  for (int64_t place = 0; place < size; ++place) {
    const Taps outer = between(place, used, size);
    for (int64_t i = 0; i < outer.count; ++i) {
      const Taps inner = between(outer.places[i], grid, padded);
      for (int64_t k = 0; k < inner.count; ++k)
        add(found[place], inner.places[k], outer.weights[i] * inner.weights[k]);
    }
  }
  return found;
}

}  // namespace

MaskGrid::MaskGrid(const at::Tensor& masks, const MaskView& view, bool columns_first) {
  VPD_CHECK(masks.dim() == 3 && masks.is_floating_point() && masks.device().is_cpu() &&
                masks.size(1) > 0 && masks.size(2) > 0,
            "masks must be floating point [Q, h, w] on the CPU, got ", masks.dtype(), " ",
            masks.sizes(), " on ", masks.device());
  for (size_t d = 0; d < 2; ++d) {
    VPD_CHECK(view.used[d] > 0 && view.used[d] <= view.padded[d] && view.size[d] > 0,
              "masks: expected a part of at least one pixel of what the network saw (",
              at::IntArrayRef(view.padded), "), and a picture of at least one, got ",
              at::IntArrayRef(view.used), " and ", at::IntArrayRef(view.size));
  }
  held = masks.detach().to(at::kFloat);
  held = (columns_first ? held.permute({2, 1, 0}) : held.permute({1, 2, 0})).contiguous();
  width = held.size(1);
  queries = held.size(2);
  down = axis(masks.size(1), view.padded[0], view.used[0], view.size[0]);
  across = axis(masks.size(2), view.padded[1], view.used[1], view.size[1]);
  if (columns_first) down.swap(across);
}

at::Tensor class_chances(const at::Tensor& logits, const at::Tensor& masks) {
  VPD_CHECK(logits.dim() == 2 && logits.is_floating_point() && masks.dim() == 3 &&
                logits.size(0) == masks.size(0) && logits.size(1) >= 2,
            "mask inference: expected logits [Q, K + 1] and masks [Q, h, w] of the same Q, got ",
            logits.sizes(), " and ", masks.sizes());
  VPD_CHECK(at::isfinite(logits).all().item<bool>() && at::isfinite(masks).all().item<bool>(),
            "mask inference: logits and masks must be finite, got NaN or infinity");
  return at::softmax(logits.detach().cpu().to(at::kFloat), -1).contiguous();
}

void check_things(const at::Tensor& chances, const std::vector<bool>& things) {
  VPD_CHECK(static_cast<int64_t>(things.size()) + 1 == chances.size(1),
            "mask inference: expected whether each of ", chances.size(1) - 1,
            " classes is a thing, got ", things.size());
}

}  // namespace vpd::ops
