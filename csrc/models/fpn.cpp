#include "models/fpn.h"

#include <ATen/autocast_mode.h>
#include <ATen/ops/upsample_nearest2d.h>

#include <algorithm>

#include "models/classifier.h"
#include "nn/dropout.h"
#include "nn/feature_maps.h"
#include "nn/init.h"

namespace vpd::models {
namespace {

FPNConfig checked(FPNConfig config) {
  VPD_CHECK(nn::are_channels(config.in_channels) && config.out_channels > 0,
            "FPNConfig: in_channels must be at least one positive channel count and out_channels "
            "positive, got in_channels ",
            at::IntArrayRef(config.in_channels), " and out_channels ", config.out_channels);
  return config;
}

SemanticFPNHeadConfig checked(SemanticFPNHeadConfig config) {
  VPD_CHECK(nn::are_channels(config.in_channels),
            "SemanticFPNHeadConfig: in_channels must be at least one positive channel count, got ",
            at::IntArrayRef(config.in_channels));
  check_classifier("SemanticFPNHeadConfig", config.channels, config.num_classes, config.dropout);
  return config;
}

// coarse, each value repeated to the size of fine, plus fine. In their own dtype: autocast would
// take the first to float32.
Tensor joined(const Tensor& coarse, const Tensor& fine) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  return at::upsample_nearest2d(coarse, fine.sizes().slice(2)).add_(fine);
}

}  // namespace

FPN::FPN(FPNConfig config) : config_(checked(std::move(config))) {
  const Scope root(table_);
  const int64_t levels = static_cast<int64_t>(config_.in_channels.size());
  const int64_t out = config_.out_channels;
  for (int64_t i = 0; i < levels; ++i) {
    const int64_t in = config_.in_channels[i];
    lateral_convs_.emplace_back(root / "lateral_convs" / i / "conv", in, out, nn::xavier(in, out));
  }
  for (int64_t i = 0; i < levels; ++i) {
    fpn_convs_.emplace_back(root / "fpn_convs" / i / "conv", out, out,
                            nn::Conv2dOptions{.init = nn::xavier(out, out, 3)});
  }
}

std::vector<Tensor> FPN::forward(const Params& p, const std::vector<Tensor>& features) const {
  std::vector<Tensor> maps = nn::prepare_maps("fpn", features, config_.in_channels, p[Slot(0)]);
  for (size_t i = 0; i < maps.size(); ++i) maps[i] = lateral_convs_[i](p, maps[i]);
  for (size_t i = maps.size() - 1; i > 0; --i) maps[i - 1] = joined(maps[i], maps[i - 1]);
  for (size_t i = 0; i < maps.size(); ++i) maps[i] = fpn_convs_[i](p, maps[i]);
  return maps;
}

SemanticFPNHead::SemanticFPNHead(SemanticFPNHeadConfig config)
    : config_(checked(std::move(config))),
      conv_seg_(conv_seg(table_, config_.channels, config_.num_classes)) {
  const Scope root = Scope(table_) / "scale_heads";
  for (int64_t i = 0; i < static_cast<int64_t>(config_.in_channels.size()); ++i) {
    std::vector<nn::ConvNorm>& convs = scale_heads_.emplace_back();
    // One convolution for each doubling. Doublings are modules too, so names count by twos.
    for (int64_t k = 0; k < std::max<int64_t>(i, 1); ++k) {
      const int64_t in = k == 0 ? config_.in_channels[i] : config_.channels;
      convs.emplace_back(root / i / (2 * k), in, config_.channels, 3);
    }
  }
}

Tensor SemanticFPNHead::forward(const Params& p, const std::vector<Tensor>& features,
                                const nn::Mode& mode) const {
  const std::vector<Tensor> maps =
      nn::prepare_maps("semantic_fpn_head", features, config_.in_channels, p[Slot(0)]);
  Tensor sum;
  for (size_t i = 0; i < maps.size(); ++i) {
    Tensor x = maps[i];
    for (const nn::ConvNorm& conv : scale_heads_[i]) {
      x = conv(p, x, mode);
      if (i > 0) x = nn::resized(x, {2 * x.size(2), 2 * x.size(3)});
    }
    x = nn::resized(x, maps[0].sizes().slice(2));
    sum = i == 0 ? x : x.add_(sum);
  }
  return conv_seg_(p, nn::dropout2d(sum, config_.dropout, mode));
}

}  // namespace vpd::models
