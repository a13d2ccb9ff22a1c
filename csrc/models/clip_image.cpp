#include "models/clip_image.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/upsample_bicubic2d.h>

#include <cmath>

#include "core/check.h"
#include "nn/layout.h"

namespace vpd::models {

namespace {

constexpr double kEmbeddingStd = 0.02;

CLIPLayerConfig layer_config(const CLIPImageConfig& config) {
  return {.hidden_size = config.hidden_size,
          .intermediate_size = config.intermediate_size,
          .num_attention_heads = config.num_attention_heads,
          .num_hidden_layers = config.num_hidden_layers,
          .hidden_act = config.hidden_act,
          .layer_norm_eps = config.layer_norm_eps,
          .causal = false};
}

CLIPImageConfig checked(CLIPImageConfig config) {
  check_clip_layers(layer_config(config), "CLIPImageConfig");
  VPD_CHECK(config.num_channels > 0 && config.projection_dim >= 0,
            "CLIPImageConfig: num_channels must be positive and projection_dim not negative, got ",
            config.num_channels, " and ", config.projection_dim);
  VPD_CHECK(
      config.patch_size > 0 && config.image_size > 0 && config.image_size % config.patch_size == 0,
      "CLIPImageConfig: image_size must be a positive multiple of patch_size, got ",
      config.image_size, " and ", config.patch_size);
  return config;
}

int64_t stored_grid(const CLIPImageConfig& config) { return config.image_size / config.patch_size; }

}  // namespace

CLIPImageEncoder::CLIPImageEncoder(CLIPImageConfig config)
    : config_(checked(std::move(config))),
      class_embedding_(
          (Scope(table_) / "vision_model.embeddings")
              .declare("class_embedding", {config_.hidden_size},
                       Init::normal(1.0 / std::sqrt(static_cast<double>(config_.hidden_size))))),
      patch_embedding_((Scope(table_) / "vision_model.embeddings.patch_embedding")
                           .declare("weight",
                                    {config_.hidden_size, config_.num_channels, config_.patch_size,
                                     config_.patch_size},
                                    Init::normal(kEmbeddingStd))),
      position_embedding_(
          (Scope(table_) / "vision_model.embeddings.position_embedding")
              .declare("weight",
                       {1 + stored_grid(config_) * stored_grid(config_), config_.hidden_size},
                       Init::normal(kEmbeddingStd))),
      // The misspelling is the original's.
      pre_layernorm_(Scope(table_) / "vision_model.pre_layrnorm", config_.hidden_size,
                     config_.layer_norm_eps),
      layers_(clip_layers(Scope(table_) / "vision_model.encoder.layers", layer_config(config_))),
      post_layernorm_(Scope(table_) / "vision_model.post_layernorm", config_.hidden_size,
                      config_.layer_norm_eps) {
  if (config_.projection_dim > 0) {
    visual_projection_ = clip_projection(Scope(table_) / "visual_projection", config_.hidden_size,
                                         config_.projection_dim);
  }
}

void CLIPImageEncoder::check_pixels(const Tensor& pixels) const {
  VPD_CHECK(
      pixels.dim() == 4 && pixels.size(1) == config_.num_channels && pixels.is_floating_point(),
      "clip_image: pixels must be float [B, ", config_.num_channels, ", H, W], got ",
      pixels.dtype(), " ", pixels.sizes());
  const auto fits = [&](int64_t size) { return size > 0 && size % config_.patch_size == 0; };
  VPD_CHECK(fits(pixels.size(2)) && fits(pixels.size(3)),
            "clip_image: height and width must be multiples of ", config_.patch_size,
            " (patch_size), got ", pixels.size(2), "x", pixels.size(3));
}

Tensor CLIPImageEncoder::positions(const Params& p, int64_t rows, int64_t columns) const {
  const Tensor stored = p[position_embedding_].unsqueeze(0);  // [1, 1 + grid^2, C]
  const int64_t grid = stored_grid(config_);
  if (rows == grid && columns == grid) return stored;
  const Tensor image = nn::to_image(stored.slice(1, 1), grid, grid);
  const Tensor resized = at::upsample_bicubic2d(image, {rows, columns}, /*align_corners=*/false);
  return at::cat({stored.slice(1, 0, 1), nn::to_tokens(resized)}, 1);
}

Tensor CLIPImageEncoder::embed(const Params& p, const Tensor& pixels) const {
  check_pixels(pixels);
  const Tensor& kernel = p[patch_embedding_];
  const Tensor patches = at::conv2d(pixels.to(kernel.scalar_type()), kernel, /*bias=*/{},
                                    config_.patch_size);  // [B, C, rows, columns]
  const Tensor tokens = at::cat(
      {p[class_embedding_].expand({pixels.size(0), 1, -1}), patches.flatten(2).transpose(1, 2)}, 1);
  return pre_layernorm_(p, tokens + positions(p, patches.size(2), patches.size(3)));
}

Tensor CLIPImageEncoder::project(const Params& p, const Tensor& tokens) const {
  VPD_CHECK(visual_projection_.has_value(),
            "clip_image: expected an encoder with a projection into CLIP's joint space, got one "
            "with projection_dim 0");
  return (*visual_projection_)(p, post_layernorm_(p, tokens));
}

CLIPImageOutput CLIPImageEncoder::forward(const Params& p, const Tensor& pixels) const {
  Tensor x = embed(p, pixels);
  CLIPImageOutput out;
  for (const CLIPLayer& layer : layers_) {
    out.penultimate = x;
    x = layer(p, x);
  }
  out.last = x;
  out.hidden = post_layernorm_(p, x);
  out.pooled = out.hidden.select(1, 0);
  if (visual_projection_) out.projected = (*visual_projection_)(p, out.pooled);
  return out;
}

}  // namespace vpd::models
