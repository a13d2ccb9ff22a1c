#pragma once
#include "nn/conv.h"
#include "nn/mode.h"
#include "nn/norm.h"

namespace vpd::nn {

// Convolution without bias, batch norm, ReLU: the ConvModule of mmsegmentation, with its names
// conv.* and bn.* and its start (He et al. 2015, over the outputs). Size is kept: kernel is odd.
// [B, in, H, W] -> [B, out, H, W]
class ConvNorm {
 public:
  ConvNorm(Scope scope, int64_t in, int64_t out, int64_t kernel);
  Tensor operator()(const Params& p, const Tensor& x, const Mode& mode) const;

 private:
  Conv2d conv_;
  BatchNorm2d bn_;
};

}  // namespace vpd::nn
