#pragma once
#include "core/params.h"
#include "nn/conv.h"
#include "nn/linear.h"
#include "nn/norm.h"

namespace vpd::nn {

// Residual block of the denoiser (Ho et al. 2020; ldm ResBlock): GN-SiLU-conv, plus the time
// embedding, GN-SiLU-conv, plus x.
class ResBlock {
 public:
  ResBlock(Scope scope, int64_t in, int64_t out, int64_t embedding, int64_t groups);
  // x [B, in, H, W]; silu_embedding [B or 1, embedding], already through SiLU (it is the same for
  // every block) -> [B, out, H, W]
  Tensor operator()(const Params& p, const Tensor& x, const Tensor& silu_embedding) const;

 private:
  GroupNorm norm_in_;
  Conv2d conv_in_;
  Linear embedding_;
  GroupNorm norm_out_;
  Conv2d conv_out_;
  std::optional<Conv1x1> skip_;
};

}  // namespace vpd::nn
