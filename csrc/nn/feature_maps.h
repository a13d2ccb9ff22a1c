#pragma once
// What heads do first with the feature maps they are called on.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace vpd::nn {

// Throws std::invalid_argument unless maps, fine to coarse, are [B, channels[i], H_i, W_i], of any
// sizes. `head` is who complains.
void check_maps(const char* head, const std::vector<at::Tensor>& maps,
                const std::vector<int64_t>& channels);

// What convolutions with `weight` compute in: its dtype, or autocast's.
at::ScalarType compute_type(const at::Tensor& weight);

// Checks maps and brings them to that dtype and to channels_last.
std::vector<at::Tensor> prepare_maps(const char* head, const std::vector<at::Tensor>& maps,
                                     const std::vector<int64_t>& channels,
                                     const at::Tensor& weight);

// Whether there is at least one channel count and all are positive.
bool are_channels(const std::vector<int64_t>& channels);

// x [B, C, h, w], bilinearly (corners not aligned) at another size: itself if it has that size.
at::Tensor resized(const at::Tensor& x, at::IntArrayRef size);

}  // namespace vpd::nn
