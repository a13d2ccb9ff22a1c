#include "models/pixel_decoder.h"

#include <ATen/OpMathType.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/relu.h>

#include <cmath>

#include "nn/feature_maps.h"
#include "nn/init.h"
#include "nn/layout.h"
#include "nn/sine_position.h"

namespace vpd::models {
namespace {

constexpr double kEps = 1e-5;

// Of convolutions outside the encoder: Xavier as Caffe2 has it, by what comes in alone.
Init by_inputs(int64_t in, int64_t kernel) {
  return Init::uniform(std::sqrt(3.0 / static_cast<double>(in * kernel * kernel)));
}

nn::Conv2d plain_conv(Scope scope, int64_t in, int64_t out, int64_t kernel) {
  return {scope,
          in,
          out,
          {.kernel = kernel, .padding = kernel / 2, .bias = false, .init = by_inputs(in, kernel)}};
}

}  // namespace

DeformableEncoderLayer::DeformableEncoderLayer(Scope scope, const Mask2FormerConfig& config)
    : self_attn_(scope / "self_attn", config.conv_dim, config.transformer_nheads,
                 config.transformer_levels, config.n_points),
      norm1_(scope / "norm1", config.conv_dim),
      ffn_(scope, config.conv_dim, config.transformer_dim_feedforward),
      norm2_(scope / "norm2", config.conv_dim) {}

Tensor DeformableEncoderLayer::operator()(const Params& p, const Tensor& x, const Tensor& position,
                                          const nn::PixelGrid& grid) const {
  const Tensor attended = norm1_(p, x + self_attn_(p, x + position, x, grid));
  return norm2_(p, attended + ffn_(p, attended));
}

PixelDecoder::PixelDecoder(Scope scope, const Mask2FormerConfig& config)
    : conv_dim_(config.conv_dim),
      levels_(config.num_feature_levels),
      input_proj_([&] {
        std::vector<Projection> projections;
        for (int64_t i = 0; i < config.transformer_levels; ++i) {
          const int64_t in = config.in_channels[config.in_channels.size() - 1 - i];
          const Scope own = scope / "input_proj" / i;
          projections.push_back(
              {nn::Conv1x1(own / 0, in, config.conv_dim, nn::xavier(in, config.conv_dim)),
               nn::GroupNorm(own / 1, config.norm_groups, config.conv_dim, kEps)});
        }
        return projections;
      }()),
      level_embed_((scope / "transformer")
                       .declare("level_embed", {config.transformer_levels, config.conv_dim},
                                Init::normal(1))),
      encoder_([&] {
        std::vector<DeformableEncoderLayer> layers;
        for (int64_t i = 0; i < config.transformer_enc_layers; ++i) {
          layers.emplace_back(scope / "transformer" / "encoder" / "layers" / i, config);
        }
        return layers;
      }()),
      steps_([&] {
        std::vector<Step> steps;
        const auto finer =
            static_cast<int64_t>(config.in_channels.size()) - config.transformer_levels;
        for (int64_t i = 0; i < finer; ++i) {
          const std::string number = std::to_string(i + 1);
          const Scope adapter = scope / ("adapter_" + number), layer = scope / ("layer_" + number);
          steps.push_back(
              {plain_conv(adapter, config.in_channels[i], config.conv_dim, 1),
               nn::GroupNorm(adapter / "norm", config.norm_groups, config.conv_dim, kEps),
               plain_conv(layer, config.conv_dim, config.conv_dim, 3),
               nn::GroupNorm(layer / "norm", config.norm_groups, config.conv_dim, kEps)});
        }
        return steps;
      }()),
      mask_features_(scope / "mask_features", config.conv_dim, config.mask_dim,
                     by_inputs(config.conv_dim, 1)) {}

// The coarsest maps after the encoder, coarse to fine.
std::vector<Tensor> PixelDecoder::encoded(const Params& p, const std::vector<Tensor>& maps) const {
  const Tensor& level_embed = p[level_embed_];
  const auto wide = maps[0].options().dtype(at::toOpMathType(maps[0].scalar_type()));
  std::vector<Tensor> tokens, positions;
  std::vector<std::array<int64_t, 2>> sizes;
  std::vector<int64_t> counts;
  for (size_t i = 0; i < input_proj_.size(); ++i) {
    const Tensor& map = maps[maps.size() - 1 - i];
    const auto [height, width] = sizes.emplace_back(std::array{map.size(2), map.size(3)});
    counts.push_back(height * width);
    tokens.push_back(nn::to_tokens(input_proj_[i].norm(p, input_proj_[i].conv(p, map))));
    const Tensor position = nn::sine_position(height, width, conv_dim_, wide);
    positions.push_back(position.to(level_embed.scalar_type()) +
                        level_embed[static_cast<int64_t>(i)]);
  }
  const nn::PixelGrid grid(sizes, wide);
  const Tensor position = at::cat(positions);  // [S, C]
  Tensor x = at::cat(tokens, 1);               // [B, S, C]
  for (const DeformableEncoderLayer& layer : encoder_) x = layer(p, x, position, grid);
  std::vector<Tensor> levels = x.split_with_sizes(counts, 1);
  for (size_t i = 0; i < levels.size(); ++i) {
    levels[i] = nn::to_image(levels[i], sizes[i][0], sizes[i][1]);
  }
  return levels;
}

PixelFeatures PixelDecoder::operator()(const Params& p, const std::vector<Tensor>& maps) const {
  std::vector<Tensor> levels = encoded(p, maps);
  for (size_t i = steps_.size(); i-- > 0;) {
    const Step& step = steps_[i];
    const Tensor fine = step.adapter_norm(p, step.adapter(p, maps[i]));
    const Tensor sum = fine + nn::resized(levels.back(), fine.sizes().slice(2));
    levels.push_back(at::relu(step.layer_norm(p, step.layer(p, sum))));
  }
  Tensor mask_features = mask_features_(p, levels.back());
  levels.resize(static_cast<size_t>(levels_));
  return {std::move(mask_features), std::move(levels)};
}

void PixelDecoder::spread_points(const std::vector<Tensor>& tensors) const {
  for (const DeformableEncoderLayer& layer : encoder_) layer.attention().spread_points(tensors);
}

}  // namespace vpd::models
