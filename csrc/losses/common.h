#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

namespace vpd::losses {

enum class Reduction { kNone, kMean, kSum };

// "none", "mean" or "sum"; throws std::invalid_argument for another word.
Reduction parse_reduction(const std::string& word);

at::Tensor reduce(const at::Tensor& values, Reduction reduction);

// Throws std::invalid_argument, naming the loss, unless logits are floating point [B, K, H, W] (K
// == classes if given) and target int64 [B, H, W] with values 0 .. K-1. Values are looked at on the
// CPU only: elsewhere that would wait for the device, whose own kernels assert.
void check_pixel_target(const char* name, const at::Tensor& logits, const at::Tensor& target,
                        std::optional<int64_t> classes = std::nullopt);

// Losses are computed in float32 at least: half-precision logits are widened.
at::Tensor widened(const at::Tensor& values);

}  // namespace vpd::losses
