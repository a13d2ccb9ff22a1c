#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <tuple>

namespace vpd::ops {

// softmax(scale q k^T) v on the CPU, without ever holding scores of more than a few queries (Dao et
// al. 2022, arXiv:2205.14135). bfloat16 or float32; sums, exponentials and the softmax in float32.
//   q [B, heads, M, D], k and v [B, heads, N, D], values of a row side by side; scale > 0
//   -> [B, heads, M, D], in memory [B, M, heads, D]
//   -> logsumexp of the scaled scores, [B, heads, M] in float32, not differentiable
std::tuple<at::Tensor, at::Tensor> flash_attention(const at::Tensor& q, const at::Tensor& k,
                                                   const at::Tensor& v, double scale);

// grad [B, heads, M, D] of the first output; gradients of q, k and v, undefined where not wanted.
std::tuple<at::Tensor, at::Tensor, at::Tensor> flash_attention_backward(
    const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
    const at::Tensor& out, const at::Tensor& logsumexp, double scale, std::array<bool, 3> wanted);

// Whether flash_attention is there for this type on this machine, and faster than PyTorch's own:
// tiles (AMX), which PyTorch uses for bfloat16, are not to be beaten without them, and neither are
// its gradients in float32 where keys are few.
bool flash_attention_pays(const at::Tensor& q, const at::Tensor& k, double scale,
                          bool differentiated);

void check_flash_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           double scale);
void check_flash_attention_backward(const at::Tensor& grad, const at::Tensor& q,
                                    const at::Tensor& k, const at::Tensor& v, const at::Tensor& out,
                                    const at::Tensor& logsumexp, double scale);

}  // namespace vpd::ops
