#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <tuple>

namespace vpd::ops {

// Attention of pixels to tokens that also returns the probabilities.
//   q [B, M, heads * D], k and v [B, N, heads * D], mask bool [B, N] (true = attend; a row must
//   attend to something)
//   -> out [B, M, heads * D], map [B, N, M]: probabilities averaged over heads, or [B, heads, N, M]
//   with per_head.
// Probabilities of all heads are never held at once unless per_head asks for them. Differentiable
// through both outputs.
std::tuple<at::Tensor, at::Tensor> cross_attention(const at::Tensor& q, const at::Tensor& k,
                                                   const at::Tensor& v,
                                                   const std::optional<at::Tensor>& mask,
                                                   int64_t heads, double scale, bool per_head);

// The same of ATen's operators, for devices, types and sizes without a kernel.
std::tuple<at::Tensor, at::Tensor> cross_attention_composite(
    const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
    const std::optional<at::Tensor>& mask, int64_t heads, double scale, bool per_head);

// Attention without maps; no [M, N] matrix is ever held, forward or backward.
//   q [B, M, heads * D], k and v [B, N, heads * D], mask bool [B, N] -> [B, M, heads * D]
at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const std::optional<at::Tensor>& mask, int64_t heads, double scale);

// Gradients of q, k and v; those not in `wanted` are undefined. An absent gradient of an output
// counts as zero.
std::tuple<at::Tensor, at::Tensor, at::Tensor> cross_attention_backward(
    const std::optional<at::Tensor>& grad_out, const std::optional<at::Tensor>& grad_map,
    const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
    const std::optional<at::Tensor>& mask, int64_t heads, double scale, bool per_head,
    std::array<bool, 3> wanted);

// Shared by the kernels of all devices; throw std::invalid_argument naming `op`.
void check_cross_attention(const char* op, const at::Tensor& q, const at::Tensor& k,
                           const at::Tensor& v, const std::optional<at::Tensor>& mask,
                           int64_t heads);
void check_cross_attention_backward(const std::optional<at::Tensor>& grad_out,
                                    const std::optional<at::Tensor>& grad_map, const at::Tensor& q,
                                    const at::Tensor& k, const at::Tensor& v,
                                    const std::optional<at::Tensor>& mask, int64_t heads,
                                    bool per_head);

}  // namespace vpd::ops
