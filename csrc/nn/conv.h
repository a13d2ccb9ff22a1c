#pragma once
#include "core/params.h"

namespace vpd::nn {

struct Conv2dOptions {
  int64_t kernel = 3;
  int64_t stride = 1;
  int64_t padding = 1;
  bool bias = true;
  // How the weight starts, the bias then being zero; PyTorch's default for both if none.
  std::optional<Init> init = std::nullopt;
};

// [B, in, H, W] -> [B, out, H', W']; keeps the memory format of x.
class Conv2d {
 public:
  Conv2d(Scope scope, int64_t in, int64_t out, Conv2dOptions options = {});
  Tensor operator()(const Params& p, const Tensor& x) const;
  // Of x and tail side by side; needs stride 1 and no bias.
  Tensor operator()(const Params& p, const Tensor& x, const Tensor& tail) const;

 private:
  Conv2dOptions options_;
  Slot weight_;
  std::optional<Slot> bias_;
};

// A 1x1 convolution is a linear map over channels: applied to [B, H*W, in] it needs no layout
// change around attention.
class Conv1x1 {
 public:
  Conv1x1(Scope scope, int64_t in, int64_t out, std::optional<Init> init = std::nullopt);
  Tensor operator()(const Params& p, const Tensor& x) const;      // [B, in, H, W] -> [B, out, H, W]
  Tensor on_tokens(const Params& p, const Tensor& tokens) const;  // [B, M, in] -> [B, M, out]

 private:
  Slot weight_;
  Slot bias_;
};

}  // namespace vpd::nn
