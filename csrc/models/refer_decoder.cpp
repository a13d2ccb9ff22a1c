#include "models/refer_decoder.h"

#include <ATen/autocast_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/upsample_bilinear2d.h>

#include <algorithm>

#include "core/check.h"
#include "nn/layout.h"

namespace vpd::models {

namespace {

constexpr int64_t kClasses = 2;  // background, target

ReferDecoderConfig checked(ReferDecoderConfig config) {
  VPD_CHECK(
      config.dims.size() >= 2 && config.hidden > 0 &&
          std::all_of(config.dims.begin(), config.dims.end(), [](int64_t d) { return d > 0; }),
      "ReferDecoderConfig: dims must be at least two positive channel counts and hidden "
      "positive, got dims ",
      at::IntArrayRef(config.dims), " and hidden ", config.hidden);
  return config;
}

// What convolutions compute in: autocast's dtype where it is on.
at::ScalarType compute_type(const Tensor& weight) {
  const auto device = weight.device().type();
  const bool autocast = at::autocast::is_autocast_available(device) &&
                        at::autocast::is_autocast_enabled(device) &&
                        weight.scalar_type() == at::kFloat;
  return autocast ? at::autocast::get_autocast_dtype(device) : weight.scalar_type();
}

// x, interpolated to the size of skip, before skip; in their own dtype (autocast would take both
// to float32 and back).
Tensor joined(Tensor x, const Tensor& skip) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  if (x.sizes().slice(2) != skip.sizes().slice(2)) {
    x = at::upsample_bilinear2d(x, skip.sizes().slice(2), /*align_corners=*/true);
  }
  return at::cat({x, skip}, 1);
}

}  // namespace

ReferDecoder::ReferDecoder(ReferDecoderConfig config)
    : config_(checked(std::move(config))),
      stages_([this] {
        const Scope root(table_);
        const int64_t hidden = config_.hidden;
        const int64_t levels = static_cast<int64_t>(config_.dims.size());
        std::vector<Stage> stages;
        int64_t channels = config_.dims.back();
        for (int64_t level = levels - 2; level >= 0; --level) {
          const std::string place = std::to_string(level + 2);
          // Braces evaluate left to right, which is the order of declaration.
          stages.push_back(
              Stage{nn::Conv2d(root / ("conv1_" + place), channels + config_.dims[level], hidden,
                               {.bias = false}),
                    nn::BatchNorm2d(root / ("bn1_" + place), hidden),
                    nn::Conv2d(root / ("conv2_" + place), hidden, hidden, {.bias = false}),
                    nn::BatchNorm2d(root / ("bn2_" + place), hidden)});
          channels = hidden;
        }
        return stages;
      }()),
      out_(Scope(table_) / "conv1_1", config_.hidden, kClasses) {}

void ReferDecoder::check_features(const std::vector<Tensor>& features) const {
  VPD_CHECK(features.size() == config_.dims.size(), "refer_decoder: expected ", config_.dims.size(),
            " feature maps, fine to coarse, got ", features.size());
  for (size_t i = 0; i < features.size(); ++i) {
    const Tensor& map = features[i];
    VPD_CHECK(map.dim() == 4 && map.size(1) == config_.dims[i] && map.is_floating_point() &&
                  map.size(0) == features[0].size(0) && map.size(2) > 0 && map.size(3) > 0,
              "refer_decoder: feature map ", i, " must be floating point [B, ", config_.dims[i],
              ", H, W] with the batch size of map 0, got ", map.dtype(), " ", map.sizes());
  }
}

Tensor ReferDecoder::forward(const Params& p, const std::vector<Tensor>& features, bool training,
                             const ops::ProcessGroup* group) const {
  check_features(features);
  const auto dtype = compute_type(p[Slot(0)]);
  Tensor x = nn::channels_last(features.back().to(dtype));
  for (size_t i = 0; i < stages_.size(); ++i) {
    const Stage& stage = stages_[i];
    const Tensor skip = nn::channels_last(features[features.size() - 2 - i].to(dtype));
    x = stage.bn1(p, stage.conv1(p, joined(x, skip)), training, group).relu_();
    x = stage.bn2(p, stage.conv2(p, x), training, group).relu_();
  }
  return out_(p, x);
}

}  // namespace vpd::models
