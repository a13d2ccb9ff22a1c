#include "nn/feature_maps.h"

#include <ATen/autocast_mode.h>

#include <algorithm>

#include "core/check.h"
#include "nn/layout.h"
#include "ops/resize_bilinear.h"

namespace vpd::nn {

at::ScalarType compute_type(const at::Tensor& weight) {
  const auto device = weight.device().type();
  const bool autocast = at::autocast::is_autocast_available(device) &&
                        at::autocast::is_autocast_enabled(device) &&
                        weight.scalar_type() == at::kFloat;
  return autocast ? at::autocast::get_autocast_dtype(device) : weight.scalar_type();
}

void check_maps(const char* head, const std::vector<at::Tensor>& maps,
                const std::vector<int64_t>& channels) {
  VPD_CHECK(maps.size() == channels.size(), head, ": expected ", channels.size(),
            " feature maps, fine to coarse, got ", maps.size());
  for (size_t i = 0; i < maps.size(); ++i) {
    const at::Tensor& map = maps[i];
    VPD_CHECK(map.dim() == 4 && map.size(1) == channels[i] && map.is_floating_point() &&
                  map.size(0) == maps[0].size(0) && map.size(2) > 0 && map.size(3) > 0,
              head, ": feature map ", i, " must be floating point [B, ", channels[i],
              ", H, W] with the batch size of map 0, got ", map.dtype(), " ", map.sizes());
  }
}

std::vector<at::Tensor> prepare_maps(const char* head, const std::vector<at::Tensor>& maps,
                                     const std::vector<int64_t>& channels,
                                     const at::Tensor& weight) {
  check_maps(head, maps, channels);
  const at::ScalarType dtype = compute_type(weight);
  std::vector<at::Tensor> prepared;
  for (const at::Tensor& map : maps) prepared.push_back(channels_last(map, dtype));
  return prepared;
}

bool are_channels(const std::vector<int64_t>& channels) {
  return !channels.empty() &&
         std::all_of(channels.begin(), channels.end(), [](int64_t count) { return count > 0; });
}

at::Tensor resized(const at::Tensor& x, at::IntArrayRef size) {
  if (x.sizes().slice(2) == size) return x;
  return ops::resize_bilinear(x, size, /*align_corners=*/false);
}

}  // namespace vpd::nn
