#include "nn/bottleneck.h"

#include <ATen/autocast_mode.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/upsample_nearest2d.h>

#include <cmath>

namespace vpd::nn {
namespace {

constexpr double kEps = 1e-5;

// In x's own dtype: autocast would take it to float32.
Tensor nearest(const Tensor& x, at::IntArrayRef size) {
  if (x.sizes().slice(2) == size) return x;
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  return at::upsample_nearest2d(x, size);
}

}  // namespace

// The start keeps the variance of gradients (He et al. 2015).
Bottleneck::Normed::Normed(Scope scope, int64_t in, int64_t out, int64_t kernel, int64_t groups)
    : conv(scope, in, out,
           {.kernel = kernel,
            .padding = kernel / 2,
            .bias = false,
            .init = Init::normal(std::sqrt(2.0 / static_cast<double>(out * kernel * kernel)))}),
      norm(scope / "norm", groups, out, kEps) {}

Bottleneck::Bottleneck(Scope scope, int64_t in, int64_t inner, int64_t out, int64_t groups)
    : shortcut_(in == out ? std::nullopt
                          : std::optional<Normed>(std::in_place, scope / "shortcut", in, out,
                                                  /*kernel=*/1, groups)),
      conv1_(scope / "conv1", in, inner, 1, groups),
      conv2_(scope / "conv2", inner, inner, 3, groups),
      conv3_(scope / "conv3", inner, out, 1, groups) {}

Tensor Bottleneck::operator()(const Params& p, const Tensor& x, at::IntArrayRef size) const {
  // Nearest neighbours and convolutions of one pixel commute: where the map grows, these come first
  // and see fewer pixels.
  const bool grows = x.size(2) * x.size(3) < size[0] * size[1];
  const Tensor seen = grows ? x : nearest(x, size);
  const Tensor narrow = nearest(conv1_.conv(p, seen), size);
  const Tensor past = nearest(shortcut_ ? shortcut_->conv(p, seen) : seen, size);

  Tensor h = at::relu(conv1_.norm(p, narrow));  // [B, inner, size]
  h = conv3_(p, at::relu(conv2_(p, h)));        // [B, out, size]
  return at::relu(h + (shortcut_ ? shortcut_->norm(p, past) : past));
}

}  // namespace vpd::nn
