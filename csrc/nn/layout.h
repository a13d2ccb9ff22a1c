#pragma once
#include <ATen/core/Tensor.h>

namespace vpd::nn {

// The core works in channels_last: convolutions like it, and a [B, C, H, W] feature map is then,
// without a copy, the [B, H*W, C] token matrix that attention wants.
inline at::Tensor channels_last(const at::Tensor& x) {
  return x.contiguous(at::MemoryFormat::ChannelsLast);
}

// The same in another dtype, in one pass.
inline at::Tensor channels_last(const at::Tensor& x, at::ScalarType dtype) {
  return x.to(dtype, /*non_blocking=*/false, /*copy=*/false, at::MemoryFormat::ChannelsLast);
}

// [B, C, H, W] -> [B, H*W, C]
inline at::Tensor to_tokens(const at::Tensor& x) {
  return channels_last(x)
      .permute({0, 2, 3, 1})
      .reshape({x.size(0), x.size(2) * x.size(3), x.size(1)});
}

// [B, H*W, C] -> [B, C, H, W] in channels_last
inline at::Tensor to_image(const at::Tensor& tokens, int64_t height, int64_t width) {
  return tokens.reshape({tokens.size(0), height, width, tokens.size(2)}).permute({0, 3, 1, 2});
}

}  // namespace vpd::nn
