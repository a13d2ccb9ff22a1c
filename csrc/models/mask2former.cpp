#include "models/mask2former.h"

#include "core/check.h"
#include "nn/feature_maps.h"

namespace vpd::models {
namespace {

constexpr const char* kName = "mask2former";
constexpr const char* kConfig = "Mask2FormerConfig";

Mask2FormerConfig checked(Mask2FormerConfig config) {
  VPD_CHECK(nn::are_channels(config.in_channels), kConfig,
            ": in_channels must be at least one positive number, got ",
            at::IntArrayRef(config.in_channels));
  const auto positive = [](const char* name, int64_t value) {
    VPD_CHECK(value > 0, kConfig, ": ", name, " must be positive, got ", value);
  };
  positive("num_classes", config.num_classes.value_or(1));
  positive("mask_dim", config.mask_dim);
  positive("num_queries", config.num_queries);
  positive("dim_feedforward", config.dim_feedforward);
  positive("dec_layers", config.dec_layers);
  positive("transformer_dim_feedforward", config.transformer_dim_feedforward);
  positive("transformer_enc_layers", config.transformer_enc_layers);
  positive("n_points", config.n_points);
  const auto count = static_cast<int64_t>(config.in_channels.size());
  const auto within = [&](const char* name, int64_t value) {
    VPD_CHECK(value > 0 && value <= count, kConfig, ": ", name, " must be from 1 to the ", count,
              " maps of in_channels, got ", value);
  };
  within("transformer_levels", config.transformer_levels);
  within("num_feature_levels", config.num_feature_levels);
  const auto divides = [](const char* name, int64_t width, const char* parts, int64_t heads) {
    VPD_CHECK(width > 0 && heads > 0 && width % 4 == 0 && width % heads == 0, kConfig, ": ", name,
              " must be a positive multiple of 4 (sines and cosines of rows and columns) and of ",
              parts, ", got ", width, " and ", heads);
  };
  divides("conv_dim", config.conv_dim, "transformer_nheads", config.transformer_nheads);
  divides("hidden_dim", config.hidden_dim, "nheads", config.nheads);
  return config;
}

// Throws where a map is larger than the finer one before it.
void check_order(const std::vector<Tensor>& maps) {
  for (size_t i = 1; i < maps.size(); ++i) {
    const auto fine = maps[i - 1].sizes().slice(2), coarse = maps[i].sizes().slice(2);
    VPD_CHECK(coarse[0] <= fine[0] && coarse[1] <= fine[1], kName,
              ": feature maps must go from fine to coarse, got ", coarse, " behind ", fine);
  }
}

}  // namespace

Mask2FormerHead::Mask2FormerHead(Mask2FormerConfig config)
    : config_(checked(std::move(config))),
      pixel_decoder_(Scope(table_) / "pixel_decoder", config_),
      predictor_(Scope(table_) / "predictor", config_) {}

std::vector<Tensor> Mask2FormerHead::initialise(
    const at::Device& device, at::ScalarType dtype,
    const std::optional<at::Generator>& generator) const {
  std::vector<Tensor> tensors = table_.initialise(device, dtype, generator);
  if (!device.is_meta()) pixel_decoder_.spread_points(tensors);
  return tensors;
}

PixelFeatures Mask2FormerHead::pixels(const Params& p, const std::vector<Tensor>& features) const {
  const std::vector<Tensor> maps =
      nn::prepare_maps(kName, features, config_.in_channels, p[Slot(0)]);
  check_order(maps);
  return pixel_decoder_(p, maps);
}

MaskedDecoderOutput Mask2FormerHead::decode(const Params& p, const PixelFeatures& features,
                                            bool last_only) const {
  std::vector<Tensor> maps{features.mask_features};
  maps.insert(maps.end(), features.levels.rbegin(), features.levels.rend());
  std::vector<int64_t> channels(static_cast<size_t>(config_.num_feature_levels) + 1,
                                config_.conv_dim);
  channels[0] = config_.mask_dim;
  maps =
      nn::prepare_maps("mask2former: decode: mask features and levels", maps, channels, p[Slot(0)]);
  check_order(maps);
  return predictor_(p, {maps[0], {maps.rbegin(), maps.rend() - 1}}, last_only);
}

}  // namespace vpd::models
