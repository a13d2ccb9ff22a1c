#pragma once
#include <ATen/core/Tensor.h>

namespace vpd::models {

using at::Tensor;

// Attribution maps of diffusion (DAAM; Tang et al. 2022, section 3): cross-attention of every layer
// and head, resized to one grid and averaged there. Differentiable.

// Maps of a layer's heads [B, heads, N, h, w] -> [B, N, *size]: each resized (bicubic), what falls
// below zero cut off, averaged over heads. No more than one head is held at the larger size.
Tensor daam_layer(const Tensor& maps, at::IntArrayRef size);

// The same for every head of several layers: the mean over all of them, however many a layer has.
Tensor daam(const std::vector<Tensor>& layers, at::IntArrayRef size);

// maps [B, N, h, w] as shares of the tokens [B, N] (bool, true = counts) at every pixel:
// maps / (sum over those tokens + 1e-6).
Tensor daam_normalized(const Tensor& maps, const Tensor& tokens);

// maps [B, N, h, w] at the size of an image (bicubic); each from 0 to 1 by its own extremes unless
// `absolute`.
Tensor daam_expanded(const Tensor& maps, at::IntArrayRef size, bool absolute);

}  // namespace vpd::models
