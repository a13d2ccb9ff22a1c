#include "models/refer_decoder.h"

#include "core/check.h"
#include "nn/feature_maps.h"
#include "nn/layout.h"
#include "ops/resize_bilinear.h"

namespace vpd::models {

namespace {

constexpr int64_t kClasses = 2;  // background, target

ReferDecoderConfig checked(ReferDecoderConfig config) {
  VPD_CHECK(config.dims.size() >= 2 && config.hidden > 0 && nn::are_channels(config.dims),
            "ReferDecoderConfig: dims must be at least two positive channel counts and hidden "
            "positive, got dims ",
            at::IntArrayRef(config.dims), " and hidden ", config.hidden);
  return config;
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

Tensor ReferDecoder::forward(const Params& p, const std::vector<Tensor>& features, bool training,
                             const ops::ProcessGroup* group) const {
  nn::check_maps("refer_decoder", features, config_.dims);
  const auto dtype = nn::compute_type(p[Slot(0)]);
  Tensor x = nn::channels_last(features.back(), dtype);
  for (size_t i = 0; i < stages_.size(); ++i) {
    const Stage& stage = stages_[i];
    const Tensor skip = nn::channels_last(features[features.size() - 2 - i], dtype);
    if (x.sizes().slice(2) != skip.sizes().slice(2)) {
      x = ops::resize_bilinear(x, skip.sizes().slice(2), /*align_corners=*/true);
    }
    x = stage.bn1.relu(p, stage.conv1(p, x, skip), training, group);
    x = stage.bn2.relu(p, stage.conv2(p, x), training, group);
  }
  return out_(p, x);
}

}  // namespace vpd::models
