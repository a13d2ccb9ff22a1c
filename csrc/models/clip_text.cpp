#include "models/clip_text.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/where.h>

#include <algorithm>

#include "core/check.h"
#include "core/constant.h"

namespace vpd::models {

namespace {

constexpr double kEmbeddingStd = 0.02;

CLIPLayerConfig layer_config(const CLIPTextConfig& config) {
  return {.hidden_size = config.hidden_size,
          .intermediate_size = config.intermediate_size,
          .num_attention_heads = config.num_attention_heads,
          .num_hidden_layers = config.num_hidden_layers,
          .hidden_act = config.hidden_act,
          .layer_norm_eps = config.layer_norm_eps,
          .causal = true};
}

CLIPTextConfig checked(CLIPTextConfig config) {
  check_clip_layers(layer_config(config), "CLIPTextConfig");
  VPD_CHECK(
      config.vocab_size > 0 && config.max_position_embeddings > 0 && config.projection_dim >= 0,
      "CLIPTextConfig: vocab_size and max_position_embeddings must be positive and "
      "projection_dim not negative, got ",
      config.vocab_size, ", ", config.max_position_embeddings, " and ", config.projection_dim);
  const std::vector<int64_t>& subset = config.vocab_subset;
  VPD_CHECK(
      std::adjacent_find(subset.begin(), subset.end(), std::greater_equal<>()) == subset.end() &&
          (subset.empty() || (subset.front() >= 0 && subset.back() < config.vocab_size)),
      "CLIPTextConfig: vocab_subset must hold distinct ids below vocab_size (", config.vocab_size,
      ") in rising order");
  return config;
}

int64_t table_rows(const CLIPTextConfig& config) {
  return config.vocab_subset.empty() ? config.vocab_size
                                     : static_cast<int64_t>(config.vocab_subset.size()) + 1;
}

}  // namespace

CLIPTextEncoder::CLIPTextEncoder(CLIPTextConfig config)
    : config_(checked(std::move(config))),
      token_embedding_((Scope(table_) / "text_model.embeddings.token_embedding")
                           .declare("weight", {table_rows(config_), config_.hidden_size},
                                    Init::normal(kEmbeddingStd))),
      position_embedding_((Scope(table_) / "text_model.embeddings.position_embedding")
                              .declare("weight",
                                       {config_.max_position_embeddings, config_.hidden_size},
                                       Init::normal(kEmbeddingStd))),
      layers_(clip_layers(Scope(table_) / "text_model.encoder.layers", layer_config(config_))),
      final_layer_norm_(Scope(table_) / "text_model.final_layer_norm", config_.hidden_size,
                        config_.layer_norm_eps) {
  if (config_.projection_dim > 0) {
    text_projection_ = clip_projection(Scope(table_) / "text_projection", config_.hidden_size,
                                       config_.projection_dim);
  }
}

void CLIPTextEncoder::check_inputs(const Tensor& ids, const std::optional<Tensor>& mask) const {
  VPD_CHECK(ids.dim() == 2 && ids.scalar_type() == at::kLong,
            "clip_text: ids must be int64 [B, N], got ", ids.dtype(), " ", ids.sizes());
  VPD_CHECK(ids.size(1) >= 1 && ids.size(1) <= config_.max_position_embeddings,
            "clip_text: sequences must have 1 to ", config_.max_position_embeddings,
            " tokens (max_position_embeddings), got ", ids.size(1));
  if (mask) {
    VPD_CHECK(mask->scalar_type() == at::kBool && mask->sizes() == ids.sizes(),
              "clip_text: mask must be bool ", ids.sizes(), ", got ", mask->dtype(), " ",
              mask->sizes());
  }
  if (ids.numel() == 0 || (!has_values(ids) && !ids.is_cuda())) return;
  // Waits for a GPU, once a sentence batch; an id past the table would otherwise kill the device's
  // context.
  const int64_t lowest = ids.min().item<int64_t>(), highest = ids.max().item<int64_t>();
  VPD_CHECK(lowest >= 0 && highest < config_.vocab_size, "clip_text: token ids must be in [0, ",
            config_.vocab_size, "), got ", lowest < 0 ? lowest : highest);
}

// Row of the embedding table of each id.
Tensor CLIPTextEncoder::embedding_rows(const Tensor& ids) const {
  if (config_.vocab_subset.empty()) return ids;
  const int64_t shared = static_cast<int64_t>(config_.vocab_subset.size());
  const Tensor subset = constant(config_.vocab_subset, ids.options());
  const Tensor position = at::searchsorted(subset, ids).clamp_max(shared - 1);
  return at::where(subset.index_select(0, position.flatten()).view_as(ids) == ids, position,
                   shared);
}

CLIPTextOutput CLIPTextEncoder::forward(const Params& p, const Tensor& ids,
                                        const std::optional<Tensor>& mask) const {
  check_inputs(ids, mask);
  const int64_t tokens = ids.size(1);
  std::optional<Tensor> attend;  // [B, 1, N, N]
  if (mask) {
    const Tensor causal = at::ones({tokens, tokens}, mask->options()).tril();
    attend = causal.logical_and(mask->unsqueeze(1).unsqueeze(1));
  }
  Tensor x = at::embedding(p[token_embedding_], embedding_rows(ids)) +
             p[position_embedding_].narrow(0, 0, tokens);  // [B, N, C]
  CLIPTextOutput out;
  for (const CLIPLayer& layer : layers_) {
    out.penultimate = x;
    x = layer(p, x, attend);
  }
  out.hidden = final_layer_norm_(p, x);
  const Tensor is_eos = ids == config_.eos_token_id;
  const Tensor first = at::where(is_eos.any(1), is_eos.to(at::kInt).argmax(1), tokens - 1);  // [B]
  out.pooled = out.hidden.index({at::arange(ids.size(0), ids.options()), first});
  if (text_projection_) out.projected = (*text_projection_)(p, out.pooled);
  return out;
}

}  // namespace vpd::models
