#pragma once
#include "core/params.h"
#include "nn/conv.h"
#include "nn/norm.h"

namespace vpd::nn {

// A residual bottleneck (He et al. 2016) with group norms (Wu and He 2018): convolutions of 1x1,
// 3x3 and 1x1 pixels, ReLUs between them and behind the sum, and a 1x1 shortcut where the widths
// differ. Keys are detectron2's: shortcut, conv1, conv2 and conv3, each weight and norm.{weight,
// bias}.
class Bottleneck {
 public:
  Bottleneck(Scope scope, int64_t in, int64_t inner, int64_t out, int64_t groups);
  // x [B, in, h, w], seen at `size` (nearest neighbours) -> [B, out, size]
  Tensor operator()(const Params& p, const Tensor& x, at::IntArrayRef size) const;

 private:
  // A convolution without bias and its norm.
  struct Normed {
    Normed(Scope scope, int64_t in, int64_t out, int64_t kernel, int64_t groups);
    Tensor operator()(const Params& p, const Tensor& x) const { return norm(p, conv(p, x)); }
    Conv2d conv;
    GroupNorm norm;
  };

  std::optional<Normed> shortcut_;
  Normed conv1_;
  Normed conv2_;
  Normed conv3_;
};

}  // namespace vpd::nn
