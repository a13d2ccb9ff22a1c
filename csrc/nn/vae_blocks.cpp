#include "nn/vae_blocks.h"

#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/upsample_nearest2d.h>

#include <cmath>

#include "nn/layout.h"
#include "ops/cross_attention.h"

namespace vpd::nn {

namespace {

constexpr double kEps = 1e-6;

}  // namespace

VAEResnetBlock::VAEResnetBlock(Scope scope, int64_t in, int64_t out, int64_t groups)
    : norm1_(scope / "norm1", groups, in, kEps),
      conv1_(scope / "conv1", in, out),
      norm2_(scope / "norm2", groups, out, kEps),
      conv2_(scope / "conv2", out, out) {
  if (in != out) nin_shortcut_.emplace(scope / "nin_shortcut", in, out);
}

Tensor VAEResnetBlock::operator()(const Params& p, const Tensor& x) const {
  const Tensor h = conv1_(p, norm1_.silu(p, x));  // [B, out, H, W]
  return (nin_shortcut_ ? (*nin_shortcut_)(p, x) : x) + conv2_(p, norm2_.silu(p, h));
}

VAEAttnBlock::VAEAttnBlock(Scope scope, int64_t channels, int64_t groups)
    : norm_(scope / "norm", groups, channels, kEps),
      q_(scope / "q", channels, channels),
      k_(scope / "k", channels, channels),
      v_(scope / "v", channels, channels),
      proj_out_(scope / "proj_out", channels, channels),
      scale_(1.0 / std::sqrt(static_cast<double>(channels))) {}

Tensor VAEAttnBlock::operator()(const Params& p, const Tensor& x) const {
  const Tensor tokens = to_tokens(norm_(p, x));  // [B, HW, C]
  const Tensor attended =
      ops::attention(q_.on_tokens(p, tokens), k_.on_tokens(p, tokens), v_.on_tokens(p, tokens),
                     /*mask=*/std::nullopt, /*heads=*/1, scale_);
  return x + to_image(proj_out_.on_tokens(p, attended), x.size(2), x.size(3));
}

VAEDownsample::VAEDownsample(Scope scope, int64_t channels)
    : conv_(scope / "conv", channels, channels, {.stride = 2, .padding = 0}) {}

Tensor VAEDownsample::operator()(const Params& p, const Tensor& x) const {
  return conv_(p, at::constant_pad_nd(x, {0, 1, 0, 1}));
}

VAEUpsample::VAEUpsample(Scope scope, int64_t channels)
    : conv_(scope / "conv", channels, channels) {}

Tensor VAEUpsample::operator()(const Params& p, const Tensor& x) const {
  return conv_(p, at::upsample_nearest2d(x, {2 * x.size(2), 2 * x.size(3)}));
}

}  // namespace vpd::nn
