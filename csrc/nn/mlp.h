#pragma once
#include "core/params.h"
#include "nn/linear.h"

namespace vpd::nn {

// Linear maps layers.0, layers.1, ... with ReLU between them. [..., widths[0]] -> [...,
// widths.back()]
class MLP {
 public:
  MLP(Scope scope, const std::vector<int64_t>& widths);
  Tensor operator()(const Params& p, const Tensor& x) const;

 private:
  std::vector<Linear> layers_;
};

// linear2(ReLU(linear1(x))), the feed-forward part of a transformer layer (Vaswani et al. 2017)
// with PyTorch's names; weights start Xavier-uniform. [..., channels] -> [..., channels]
class ReLUFeedForward {
 public:
  ReLUFeedForward(Scope scope, int64_t channels, int64_t hidden);
  Tensor operator()(const Params& p, const Tensor& x) const;

 private:
  Linear linear1_;
  Linear linear2_;
};

}  // namespace vpd::nn
