#include "models/masked_decoder.h"

#include <ATen/OpMathType.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "nn/feature_maps.h"
#include "nn/layout.h"
#include "nn/sine_position.h"

namespace vpd::models {
namespace {

// x + part(x), normed in front of the part or behind the sum.
template <typename Part>
Tensor residual(const Params& p, const nn::LayerNorm& norm, bool pre_norm, const Tensor& x,
                const Part& part) {
  return pre_norm ? x + part(norm(p, x)) : norm(p, x + part(x));
}

// Where queries may look in a level of h x w pixels: where their masks, mask logits [B, Q, H, W],
// are at least 0 there, or everywhere if that is nowhere. -> bool [B, 1, Q, h * w]
Tensor visible(const Tensor& masks, at::IntArrayRef size) {
  const at::NoGradGuard no_grad;
  const Tensor inside = nn::resized(masks.detach(), size).flatten(2) >= 0;
  return inside.logical_or(inside.any(-1, /*keepdim=*/true).logical_not()).unsqueeze(1);
}

}  // namespace

MaskedDecoderLayer::MaskedDecoderLayer(Scope scope, int64_t index, const Mask2FormerConfig& config)
    : pre_norm_(config.pre_norm),
      cross_attn_(scope / "transformer_cross_attention_layers" / index / "multihead_attn",
                  config.hidden_dim, config.nheads),
      cross_norm_(scope / "transformer_cross_attention_layers" / index / "norm", config.hidden_dim),
      self_attn_(scope / "transformer_self_attention_layers" / index / "self_attn",
                 config.hidden_dim, config.nheads),
      self_norm_(scope / "transformer_self_attention_layers" / index / "norm", config.hidden_dim),
      ffn_(scope / "transformer_ffn_layers" / index, config.hidden_dim, config.dim_feedforward),
      ffn_norm_(scope / "transformer_ffn_layers" / index / "norm", config.hidden_dim) {}

Tensor MaskedDecoderLayer::operator()(const Params& p, const Tensor& x, const Tensor& place,
                                      const Pixels& pixels, const Tensor& attend) const {
  const Tensor read = residual(p, cross_norm_, pre_norm_, x, [&](const Tensor& in) {
    return cross_attn_(p, in + place, pixels.keys, pixels.tokens, attend);
  });
  const Tensor shared = residual(p, self_norm_, pre_norm_, read, [&](const Tensor& in) {
    const Tensor placed = in + place;
    return self_attn_(p, placed, placed, in);
  });
  return residual(p, ffn_norm_, pre_norm_, shared, [&](const Tensor& in) { return ffn_(p, in); });
}

MaskedDecoder::MaskedDecoder(Scope scope, const Mask2FormerConfig& config)
    : hidden_dim_(config.hidden_dim),
      query_feat_((scope / "query_feat")
                      .declare("weight", {config.num_queries, config.hidden_dim}, Init::normal(1))),
      query_embed_(
          (scope / "query_embed")
              .declare("weight", {config.num_queries, config.hidden_dim}, Init::normal(1))),
      level_embed_(
          (scope / "level_embed")
              .declare("weight", {config.num_feature_levels, config.hidden_dim}, Init::normal(1))),
      input_proj_([&] {
        std::vector<nn::Conv1x1> projections;
        if (config.conv_dim == config.hidden_dim && !config.enforce_input_project) {
          return projections;
        }
        const Init start = Init::uniform(std::sqrt(3.0 / static_cast<double>(config.conv_dim)));
        for (int64_t i = 0; i < config.num_feature_levels; ++i) {
          projections.emplace_back(scope / "input_proj" / i, config.conv_dim, config.hidden_dim,
                                   start);
        }
        return projections;
      }()),
      layers_([&] {
        std::vector<MaskedDecoderLayer> layers;
        for (int64_t i = 0; i < config.dec_layers; ++i) layers.emplace_back(scope, i, config);
        return layers;
      }()),
      norm_(scope / "decoder_norm", config.hidden_dim),
      class_embed_(config.num_classes
                       ? std::optional<nn::Linear>(std::in_place, scope / "class_embed",
                                                   config.hidden_dim, *config.num_classes + 1)
                       : std::nullopt),
      mask_embed_(scope / "mask_embed",
                  {config.hidden_dim, config.hidden_dim, config.hidden_dim, config.mask_dim}) {}

std::vector<MaskedDecoderLayer::Pixels> MaskedDecoder::pixels(
    const Params& p, const std::vector<Tensor>& levels) const {
  const Tensor& level_embed = p[level_embed_];
  std::vector<MaskedDecoderLayer::Pixels> read;
  for (size_t i = 0; i < levels.size(); ++i) {
    const Tensor& level = levels[i];
    Tensor tokens = nn::to_tokens(level);
    if (!input_proj_.empty()) tokens = input_proj_[i].on_tokens(p, tokens);
    tokens = tokens + level_embed[static_cast<int64_t>(i)];
    const auto wide = tokens.options().dtype(at::toOpMathType(tokens.scalar_type()));
    const Tensor position = nn::sine_position(level.size(2), level.size(3), hidden_dim_, wide);
    const Tensor keys = tokens + position.to(tokens.scalar_type());
    read.push_back({std::move(tokens), keys});
  }
  return read;
}

MaskedDecoderOutput MaskedDecoder::operator()(const Params& p, const PixelFeatures& features,
                                              bool last_only) const {
  const Tensor& mask_features = features.mask_features;
  const Tensor flat = nn::to_tokens(mask_features).transpose(1, 2);  // [B, mask_dim, H * W]
  const std::vector<MaskedDecoderLayer::Pixels> levels = pixels(p, features.levels);
  const Tensor& place = p[query_embed_];
  Tensor x = p[query_feat_].unsqueeze(0).expand({mask_features.size(0), -1, -1});  // [B, Q, C]
  MaskedDecoderOutput out;
  for (size_t i = 0; i <= layers_.size(); ++i) {
    const bool last = i == layers_.size(), wanted = last || !last_only;
    Tensor masks;
    {
      const at::AutoGradMode grad(at::GradMode::is_enabled() && wanted);
      const Tensor queries = norm_(p, x);
      masks = mask_embed_(p, queries)
                  .matmul(flat)
                  .unflatten(2, mask_features.sizes().slice(2));  // [B, Q, H_0, W_0]
      if (wanted) {
        out.queries.push_back(queries);
        if (class_embed_) out.logits.push_back((*class_embed_)(p, queries));
        out.masks.push_back(masks);
      }
    }
    if (last) break;
    const size_t level = i % levels.size();
    const Tensor attend = visible(masks, features.levels[level].sizes().slice(2));
    x = layers_[i](p, x, place, levels[level], attend);
  }
  return out;
}

}  // namespace vpd::models
