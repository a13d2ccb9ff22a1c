#include "models/odise_head.h"

#include <ATen/OpMathType.h>
#include <ATen/ops/cat.h>

#include <cmath>

#include "core/check.h"
#include "core/constant.h"
#include "ops/category_logits.h"
#include "ops/mask_pooling.h"

namespace vpd::models {
namespace {

constexpr const char* kText = "odise_text_head";
constexpr double kTemperature = 0.07, kLargestScale = 100;  // CLIP's (Radford et al. 2021)
constexpr double kNullStd = 0.02;

int64_t checked(int64_t projection_dim) {
  VPD_CHECK(projection_dim > 0, "OdiseHeadConfig: projection_dim must be positive, got ",
            projection_dim);
  return projection_dim;
}

OdiseTextConfig checked(OdiseTextConfig config) {
  VPD_CHECK(config.text_dim > 0 && config.projection_dim.value_or(1) > 0,
            "OdiseTextConfig: text_dim and projection_dim must be positive, got ", config.text_dim,
            " and ", config.projection_dim.value_or(1));
  return config;
}

}  // namespace

PooledMaskEmbed::PooledMaskEmbed(Scope scope, const Mask2FormerConfig& config,
                                 int64_t projection_dim)
    : pool_norm_(scope / "pool_proj" / 0, config.mask_dim),
      pool_proj_(scope / "pool_proj" / 1, config.mask_dim, config.hidden_dim),
      embed_norm_(scope / "mask_embed" / 0, config.hidden_dim),
      embed_(scope / "mask_embed" / 1,
             {config.hidden_dim, config.hidden_dim, config.hidden_dim, projection_dim}),
      logit_scale_(scope.declare("logit_scale", {}, Init::constant(std::log(1 / kTemperature)))) {}

Tensor PooledMaskEmbed::operator()(const Params& p, const Tensor& features, const Tensor& masks,
                                   const Tensor& queries) const {
  const Tensor pooled = ops::mask_pooling(features, masks).to(queries.scalar_type());
  const Tensor joined = pool_proj_(p, pool_norm_(p, pooled)) + queries;  // [B, Q, hidden_dim]
  return embed_(p, embed_norm_(p, joined));
}

Tensor PooledMaskEmbed::scale(const Params& p) const {
  const Tensor& logit = p[logit_scale_];
  return logit.to(at::toOpMathType(logit.scalar_type())).exp().clamp_max(kLargestScale);
}

OdiseHead::OdiseHead(Mask2FormerConfig config, int64_t projection_dim)
    : Mask2FormerHead(std::move(config)),
      post_mask_embed_(root() / "predictor" / "post_mask_embed", this->config(),
                       checked(projection_dim)) {}

OdiseOutput OdiseHead::decode(const Params& p, const PixelFeatures& features,
                              bool last_only) const {
  OdiseOutput out{Mask2FormerHead::decode(p, features, last_only), {}, post_mask_embed_.scale(p)};
  MaskedDecoderOutput& decoded = out.decoded;
  const Tensor& first = decoded.queries[0];
  // Widened once for all outputs.
  const Tensor wide = features.mask_features.to(at::toOpMathType(first.scalar_type()));
  for (size_t i = 0; i < decoded.queries.size(); ++i) {
    out.embeddings.push_back(post_mask_embed_(p, wide, decoded.masks[i], decoded.queries[i]));
  }
  if (decoded.logits.empty()) {
    const Tensor object = constant<float>({1, 0}, first.options().dtype(at::kFloat))
                              .to(first.scalar_type())
                              .expand({first.size(0), first.size(1), 2});  // object or not
    decoded.logits.assign(decoded.queries.size(), object);
  }
  return out;
}

OdiseTextHead::OdiseTextHead(OdiseTextConfig config) : config_(checked(config)) {
  const Scope root(table_);
  if (config.projection_dim) {
    text_proj_.emplace(root / "text_proj", config.text_dim, *config.projection_dim);
  }
  if (config.null) {
    null_embed_ = root.declare("null_embed", {1, config.text_dim}, Init::normal(kNullStd));
  }
}

Tensor OdiseTextHead::project(const Params& p, const Tensor& texts) const {
  VPD_CHECK(texts.dim() >= 1 && texts.size(-1) == config_.text_dim && texts.is_floating_point(),
            kText, ": texts must be floating point [..., ", config_.text_dim, "], got ",
            texts.dtype(), " ", texts.sizes());
  return text_proj_ ? (*text_proj_)(p, texts.to(p[Slot(0)].scalar_type())) : texts;
}

std::vector<Tensor> OdiseTextHead::logits(const Params& p, const std::vector<Tensor>& embeddings,
                                          const Tensor& texts, std::vector<int64_t> categories,
                                          const Tensor& scale) const {
  VPD_CHECK(texts.dim() == 2 && texts.size(0) > 0 && texts.size(1) == config_.text_dim &&
                texts.is_floating_point(),
            kText, ": texts must be floating point [S, ", config_.text_dim, "], at least one, got ",
            texts.dtype(), " ", texts.sizes());
  const int64_t known = ops::count_categories(categories, texts.size(0));
  Tensor names = texts;
  if (null_embed_) {  // one more category
    categories.push_back(known);
    names = at::cat({names.to(p[*null_embed_].scalar_type()), p[*null_embed_]});
  }
  names = project(p, names);
  std::vector<Tensor> scores;
  for (const Tensor& z : embeddings) {
    scores.push_back(ops::category_logits(z, names, categories, scale));
  }
  return scores;
}

}  // namespace vpd::models
