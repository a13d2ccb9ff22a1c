#include "models/uper_head.h"

#include <ATen/autocast_mode.h>
#include <ATen/ops/adaptive_avg_pool2d.h>
#include <ATen/ops/cat.h>

#include "models/classifier.h"
#include "nn/dropout.h"
#include "nn/feature_maps.h"

namespace vpd::models {
namespace {

UperNetHeadConfig checked(UperNetHeadConfig config) {
  VPD_CHECK(nn::are_channels(config.in_channels) && nn::are_channels(config.pool_scales),
            "UperNetHeadConfig: in_channels and pool_scales must each be at least one positive "
            "number, got ",
            at::IntArrayRef(config.in_channels), " and ", at::IntArrayRef(config.pool_scales));
  check_classifier("UperNetHeadConfig", config.channels, config.num_classes, config.dropout);
  return config;
}

FCNHeadConfig checked(FCNHeadConfig config) {
  VPD_CHECK(config.in_channels > 0 && config.num_convs > 0 && config.in_index >= 0,
            "FCNHeadConfig: in_channels and num_convs must be positive and in_index not negative, "
            "got ",
            config.in_channels, ", ", config.num_convs, " and ", config.in_index);
  check_classifier("FCNHeadConfig", config.channels, config.num_classes, config.dropout);
  return config;
}

// Layers scope / 0, 1, ...: of `in[i]` to `out` channels.
std::vector<nn::ConvNorm> layers(Scope scope, const std::vector<int64_t>& in, int64_t out,
                                 int64_t kernel) {
  std::vector<nn::ConvNorm> convs;
  for (size_t i = 0; i < in.size(); ++i) {
    convs.emplace_back(scope / static_cast<int64_t>(i), in[i], out, kernel);
  }
  return convs;
}

// The mean over each cell of a side x side grid, in x's own dtype under autocast too.
Tensor pooled_to(const Tensor& x, int64_t side) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  return at::adaptive_avg_pool2d(x, {side, side});
}

}  // namespace

UperNetHead::UperNetHead(UperNetHeadConfig config)
    : config_(checked(std::move(config))),
      conv_seg_(conv_seg(table_, config_.channels, config_.num_classes)),
      psp_modules_([this] {
        std::vector<nn::ConvNorm> convs;
        for (size_t i = 0; i < config_.pool_scales.size(); ++i) {
          // The pooling itself is module 0.
          convs.emplace_back(Scope(table_) / "psp_modules" / static_cast<int64_t>(i) / 1,
                             config_.in_channels.back(), config_.channels, 1);
        }
        return convs;
      }()),
      bottleneck_(Scope(table_) / "bottleneck",
                  config_.in_channels.back() +
                      static_cast<int64_t>(config_.pool_scales.size()) * config_.channels,
                  config_.channels, 3),
      lateral_convs_(layers(Scope(table_) / "lateral_convs",
                            {config_.in_channels.begin(), config_.in_channels.end() - 1},
                            config_.channels, 1)),
      fpn_convs_(layers(Scope(table_) / "fpn_convs",
                        std::vector<int64_t>(config_.in_channels.size() - 1, config_.channels),
                        config_.channels, 3)),
      fpn_bottleneck_(Scope(table_) / "fpn_bottleneck",
                      static_cast<int64_t>(config_.in_channels.size()) * config_.channels,
                      config_.channels, 3) {}

Tensor UperNetHead::pooled(const Params& p, const Tensor& x, const nn::Mode& mode) const {
  std::vector<Tensor> all{x};
  for (size_t i = 0; i < psp_modules_.size(); ++i) {
    const Tensor cells = psp_modules_[i](p, pooled_to(x, config_.pool_scales[i]), mode);
    all.push_back(nn::resized(cells, x.sizes().slice(2)));
  }
  return bottleneck_(p, at::cat(all, 1), mode);
}

Tensor UperNetHead::pool(const Params& p, const Tensor& coarsest, const nn::Mode& mode) const {
  const std::vector<Tensor> maps =
      nn::prepare_maps("uper_head: pool", {coarsest}, {config_.in_channels.back()}, p[Slot(0)]);
  return pooled(p, maps[0], mode);
}

Tensor UperNetHead::forward(const Params& p, const std::vector<Tensor>& features,
                            const nn::Mode& mode) const {
  std::vector<Tensor> maps =
      nn::prepare_maps("uper_head", features, config_.in_channels, p[Slot(0)]);
  for (size_t i = 0; i + 1 < maps.size(); ++i) maps[i] = lateral_convs_[i](p, maps[i], mode);
  maps.back() = pooled(p, maps.back(), mode);
  for (size_t i = maps.size() - 1; i > 0; --i) {
    maps[i - 1] = maps[i - 1] + nn::resized(maps[i], maps[i - 1].sizes().slice(2));
  }
  const std::vector<int64_t> size = maps[0].sizes().slice(2).vec();
  for (size_t i = 0; i < maps.size(); ++i) {
    const Tensor map = i < fpn_convs_.size() ? fpn_convs_[i](p, maps[i], mode) : maps[i];
    maps[i] = nn::resized(map, size);
  }
  const Tensor x = fpn_bottleneck_(p, at::cat(maps, 1), mode);
  return conv_seg_(p, nn::dropout2d(x, config_.dropout, mode));
}

FCNHead::FCNHead(FCNHeadConfig config)
    : config_(checked(std::move(config))),
      conv_seg_(conv_seg(table_, config_.channels, config_.num_classes)),
      convs_([this] {
        std::vector<int64_t> in(static_cast<size_t>(config_.num_convs), config_.channels);
        in[0] = config_.in_channels;
        return layers(Scope(table_) / "convs", in, config_.channels, 3);
      }()) {}

Tensor FCNHead::forward(const Params& p, const std::vector<Tensor>& features,
                        const nn::Mode& mode) const {
  const size_t index = static_cast<size_t>(config_.in_index);
  VPD_CHECK(index < features.size(), "fcn_head: expected at least ", index + 1,
            " feature maps, fine to coarse, got ", features.size());
  Tensor x = nn::prepare_maps("fcn_head", {features[index]}, {config_.in_channels}, p[Slot(0)])[0];
  for (const nn::ConvNorm& conv : convs_) x = conv(p, x, mode);
  return conv_seg_(p, nn::dropout2d(x, config_.dropout, mode));
}

}  // namespace vpd::models
