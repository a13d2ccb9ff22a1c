#include <ATen/ops/empty_like.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/upsample_bilinear2d.h>
#include <ATen/ops/upsample_bilinear2d_backward.h>
#include <ATen/ops/zeros.h>

#include "losses/segmentation_pixels.h"

namespace vpd::losses {

using at::Tensor;

namespace {

// One image of the batch at the size of its labels.
struct Image {
  bool resized;
  Tensor logits;   // [1, K, H, W]
  Tensor ignored;  // bool [1, H, W]
  Tensor label;    // [1, H, W]; 0 where ignored
  Tensor weight;   // [1, H, W]

  Image(const Pixels& pixels, int64_t index)
      : resized(pixels.logits.sizes().slice(2) != pixels.target.sizes().slice(1)),
        logits(pixels.logits.narrow(0, index, 1)) {
    if (resized) {
      logits = at::upsample_bilinear2d(logits, pixels.target.sizes().slice(1),
                                       /*align_corners=*/false);
    }
    const Tensor target = pixels.target.narrow(0, index, 1);
    ignored = target == pixels.ignore_index;
    label = target.masked_fill(ignored, 0);
    weight = pixels.weight.index_select(0, label.flatten()).view_as(label);
  }
};

}  // namespace

PixelLosses losses_by_image(const Pixels& pixels) {
  const int64_t batch = pixels.target.size(0);
  Tensor loss = at::zeros(pixels.target.sizes(), pixels.logits.options());
  Tensor log_sum = at::empty_like(loss);
  Tensor correct = at::zeros({}, pixels.target.options());
  for (int64_t i = 0; i < batch; ++i) {
    const Image image(pixels, i);
    const auto own = [&](const Tensor& t) {
      return t.gather(1, image.label.unsqueeze(1)).squeeze(1);
    };
    const Tensor log_share = own(at::log_softmax(image.logits, 1));
    loss.narrow(0, i, 1).copy_((-log_share * image.weight).masked_fill_(image.ignored, 0));
    log_sum.narrow(0, i, 1).copy_(own(image.logits) - log_share);
    const Tensor hit = image.logits.argmax(1) == image.label;
    correct += hit.logical_and(image.ignored.logical_not()).sum();
  }
  return {loss, log_sum, correct};
}

Tensor gradient_by_image(const Pixels& pixels, const Tensor& log_sum, const Tensor& grad) {
  const int64_t batch = pixels.target.size(0);
  Tensor to = at::empty_like(pixels.logits);
  for (int64_t i = 0; i < batch; ++i) {
    const Image image(pixels, i);
    Tensor share = (image.logits - log_sum.narrow(0, i, 1).unsqueeze(1)).exp_();
    const Tensor scale = (grad.narrow(0, i, 1) * image.weight).masked_fill_(image.ignored, 0);
    share.mul_(scale.unsqueeze(1));
    share.scatter_add_(1, image.label.unsqueeze(1), -scale.unsqueeze(1));
    if (image.resized) {
      c10::SmallVector<int64_t, 4> sizes(pixels.logits.sizes());
      sizes[0] = 1;
      share = at::upsample_bilinear2d_backward(share, pixels.target.sizes().slice(1), sizes,
                                               /*align_corners=*/false);
    }
    to.narrow(0, i, 1).copy_(share);
  }
  return to;
}

}  // namespace vpd::losses
