#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

namespace vpd::ops {

// PyTorch's fused attention: no [M, N] matrix is held, forward or backward.
//   q [B, heads, M, D], k and v [B, heads, N, D], mask broadcastable to [B, heads, M, N] -> [B,
//   heads, M, D]
// On the CPU, half precision that is to be differentiated is computed in float32: the fused
// backward in bfloat16 is 2 to 8 times slower than in float32 at the sizes of a small U-Net
// (benchmarks/ops.py), and less exact.
at::Tensor sdpa(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                const std::optional<at::Tensor>& mask, bool causal, double scale);

}  // namespace vpd::ops
