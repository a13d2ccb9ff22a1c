#include "models/mask_clip.h"

#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/upsample_bilinear2d.h>
#include <ATen/ops/zeros.h>

#include "core/check.h"

namespace vpd::models {

namespace {

constexpr double kEpsilon = 1e-8;  // of ODISE's pooling

void check_masks(const Tensor& pixels, const Tensor& masks) {
  VPD_CHECK(
      pixels.dim() == 4 && pixels.is_floating_point() && pixels.size(2) > 0 && pixels.size(3) > 0,
      "mask_clip: pixels must be float [B, C, h, w], got ", pixels.dtype(), " ", pixels.sizes());
  VPD_CHECK(masks.dim() == 4 && masks.is_floating_point() && masks.size(0) == pixels.size(0) &&
                masks.size(2) > 0 && masks.size(3) > 0,
            "mask_clip: masks must be logits, float [", pixels.size(0), ", N, h, w], got ",
            masks.dtype(), " ", masks.sizes());
}

// On the encoder's own square.
Tensor squared(const CLIPImageEncoder& encoder, const Tensor& images) {
  const int64_t side = encoder.config().image_size;
  if (images.size(2) == side && images.size(3) == side) return images;
  return at::upsample_bilinear2d(images, {side, side}, /*align_corners=*/false);
}

// bool [B, N, P]: whether a mask's sigmoid reaches 0.5 somewhere in a patch.
Tensor in_patch(const CLIPImageEncoder& encoder, const Tensor& masks) {
  const Tensor highest = at::max_pool2d(squared(encoder, masks), encoder.config().patch_size);
  return at::sigmoid(highest.flatten(2)).ge(0.5);
}

// With the class token first: bool [B, N, 1 + P].
Tensor with_class_token(const Tensor& patches) {
  const Tensor always = at::ones({patches.size(0), patches.size(1), 1}, patches.options());
  return at::cat({always, patches}, 2);
}

// What is added to the attention logits of [tokens; copies], [B, 1, T + N, T + N].
Tensor additions(const Tensor& hidden, const Tensor& like) {
  const int64_t copies = hidden.size(1), tokens = hidden.size(2);
  const Tensor rows = at::cat(
      {at::zeros({hidden.size(0), tokens, tokens}, like.options()), hidden.to(like.dtype())}, 1);
  const Tensor columns = at::ones({hidden.size(0), tokens + copies, copies}, like.options());
  return at::cat({rows, columns}, 2).unsqueeze(1);
}

}  // namespace

Tensor mask_tokens(const CLIPImageEncoder& encoder, const Params& p, const Tensor& pixels,
                   const Tensor& masks, MaskRule rule) {
  check_masks(pixels, masks);
  const int64_t count = masks.size(1);
  Tensor x = encoder.embed(p, squared(encoder, pixels));            // [B, T, C]
  Tensor copies = x.slice(1, 0, 1).expand({x.size(0), count, -1});  // [B, N, C]
  if (count == 0) return encoder.project(p, copies);
  const Tensor visible = with_class_token(in_patch(encoder, masks));  // [B, N, T]
  const std::vector<CLIPLayer>& layers = encoder.layers();
  if (rule == MaskRule::kAddOne) {
    const Tensor added = additions(visible.logical_not(), x);
    x = at::cat({x, copies}, 1);
    for (const CLIPLayer& layer : layers) x = layer(p, x, added);
    return encoder.project(p, x.slice(1, -count));
  }
  const Tensor mask = visible.unsqueeze(1);
  for (size_t i = 0; i < layers.size(); ++i) {
    const CLIPLayer::Seen seen = layers[i].see(p, x);
    copies = layers[i].read(p, copies, seen, mask);
    if (i + 1 < layers.size()) x = layers[i].advance(p, seen);  // nobody reads the last ones
  }
  return encoder.project(p, copies);
}

Tensor mask_pooled(const CLIPImageEncoder& encoder, const Params& p, const Tensor& pixels,
                   const Tensor& masks) {
  check_masks(pixels, masks);
  Tensor x = encoder.embed(p, squared(encoder, pixels));
  if (masks.size(1) == 0) return encoder.project(p, x.slice(1, 0, 0));
  for (const CLIPLayer& layer : encoder.layers()) x = layer(p, x);
  const Tensor patches = encoder.project(p, x.slice(1, 1));  // [B, P, D]
  const Tensor inside = squared(encoder, masks).gt(0).to(patches.scalar_type());
  const Tensor shares =
      at::avg_pool2d(inside, encoder.config().patch_size).flatten(2);  // [B, N, P]
  return shares.matmul(patches) / (shares.sum(-1, /*keepdim=*/true) + kEpsilon);
}

}  // namespace vpd::models
