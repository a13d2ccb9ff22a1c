#pragma once
#include "core/params.h"
#include "nn/conv.h"
#include "nn/norm.h"

namespace vpd::nn {

// Blocks of the image autoencoders (ldm modules/diffusionmodules/model.py; Esser et al. 2021,
// Rombach et al. 2022). Their group norms use eps 1e-6, the denoiser's residual blocks 1e-5.

// GN-SiLU-conv twice, plus x. [B, in, H, W] -> [B, out, H, W]
class VAEResnetBlock {
 public:
  VAEResnetBlock(Scope scope, int64_t in, int64_t out, int64_t groups);
  Tensor operator()(const Params& p, const Tensor& x) const;

 private:
  GroupNorm norm1_;
  Conv2d conv1_;
  GroupNorm norm2_;
  Conv2d conv2_;
  std::optional<Conv1x1> nin_shortcut_;
};

// Single-head self-attention over pixels, residual. [B, C, H, W] -> same; no [HW, HW] matrix is
// held.
class VAEAttnBlock {
 public:
  VAEAttnBlock(Scope scope, int64_t channels, int64_t groups);
  Tensor operator()(const Params& p, const Tensor& x) const;

 private:
  GroupNorm norm_;
  Conv1x1 q_;
  Conv1x1 k_;
  Conv1x1 v_;
  Conv1x1 proj_out_;
  double scale_;
};

// One row and column of zeros at the bottom and right, then a strided convolution. [B, C, H, W] ->
// [B, C, H/2, W/2]
class VAEDownsample {
 public:
  VAEDownsample(Scope scope, int64_t channels);
  Tensor operator()(const Params& p, const Tensor& x) const;

 private:
  Conv2d conv_;
};

// Nearest x2, then a convolution. [B, C, H, W] -> [B, C, 2H, 2W]
class VAEUpsample {
 public:
  VAEUpsample(Scope scope, int64_t channels);
  Tensor operator()(const Params& p, const Tensor& x) const;

 private:
  Conv2d conv_;
};

}  // namespace vpd::nn
