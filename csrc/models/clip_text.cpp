#include "models/clip_text.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>

#include "core/check.h"
#include "ops/sdpa.h"

namespace vpd::models {

namespace {

constexpr double kEmbeddingStd = 0.02;

CLIPTextConfig checked(CLIPTextConfig config) {
  VPD_CHECK(config.vocab_size > 0 && config.intermediate_size > 0 && config.num_hidden_layers > 0 &&
                config.max_position_embeddings > 0 && config.projection_dim >= 0,
            "CLIPTextConfig: vocab_size, intermediate_size, num_hidden_layers and "
            "max_position_embeddings must be positive and projection_dim not negative, got ",
            config.vocab_size, ", ", config.intermediate_size, ", ", config.num_hidden_layers, ", ",
            config.max_position_embeddings, " and ", config.projection_dim);
  VPD_CHECK(config.num_attention_heads > 0 && config.hidden_size > 0 &&
                config.hidden_size % config.num_attention_heads == 0,
            "CLIPTextConfig: hidden_size must divide into num_attention_heads, got ",
            config.hidden_size, " and ", config.num_attention_heads);
  VPD_CHECK(config.hidden_act == "quick_gelu" || config.hidden_act == "gelu",
            "CLIPTextConfig: hidden_act must be quick_gelu or gelu, got '", config.hidden_act, "'");
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

// Standard deviations of transformers' CLIP initialisation.
double input_std(const CLIPTextConfig& config) {
  return 1.0 / std::sqrt(2.0 * static_cast<double>(config.hidden_size * config.num_hidden_layers));
}

nn::Linear projection(Scope scope, int64_t in, int64_t out, double std, bool bias = true) {
  return nn::Linear(scope, in, out, bias, Init::normal(std), Init::zeros());
}

}  // namespace

CLIPTextLayer::CLIPTextLayer(Scope scope, const CLIPTextConfig& config)
    : heads_(config.num_attention_heads),
      quick_gelu_(config.hidden_act == "quick_gelu"),
      k_proj_(projection(scope / "self_attn.k_proj", config.hidden_size, config.hidden_size,
                         input_std(config))),
      v_proj_(projection(scope / "self_attn.v_proj", config.hidden_size, config.hidden_size,
                         input_std(config))),
      q_proj_(projection(scope / "self_attn.q_proj", config.hidden_size, config.hidden_size,
                         input_std(config))),
      out_proj_(projection(scope / "self_attn.out_proj", config.hidden_size, config.hidden_size,
                           1.0 / std::sqrt(static_cast<double>(config.hidden_size)))),
      layer_norm1_(scope / "layer_norm1", config.hidden_size, config.layer_norm_eps),
      fc1_(projection(scope / "mlp.fc1", config.hidden_size, config.intermediate_size,
                      1.0 / std::sqrt(2.0 * static_cast<double>(config.hidden_size)))),
      fc2_(projection(scope / "mlp.fc2", config.intermediate_size, config.hidden_size,
                      input_std(config))),
      layer_norm2_(scope / "layer_norm2", config.hidden_size, config.layer_norm_eps) {}

Tensor CLIPTextLayer::attend(const Params& p, const Tensor& x,
                             const std::optional<Tensor>& mask) const {
  const auto split = [&](const Tensor& t) {  // [B, N, C] -> [B, heads, N, D]
    return t.unflatten(-1, {heads_, -1}).transpose(1, 2);
  };
  const Tensor q = split(q_proj_(p, x));
  const Tensor out =
      ops::sdpa(q, split(k_proj_(p, x)), split(v_proj_(p, x)), mask,
                /*causal=*/!mask.has_value(), 1.0 / std::sqrt(static_cast<double>(q.size(-1))));
  return out_proj_(p, out.transpose(1, 2).flatten(2));
}

Tensor CLIPTextLayer::activate(const Tensor& x) const {
  return quick_gelu_ ? x * at::sigmoid(1.702 * x) : at::gelu(x);
}

Tensor CLIPTextLayer::operator()(const Params& p, const Tensor& x,
                                 const std::optional<Tensor>& mask) const {
  const Tensor h = x + attend(p, layer_norm1_(p, x), mask);
  return h + fc2_(p, activate(fc1_(p, layer_norm2_(p, h))));
}

CLIPTextEncoder::CLIPTextEncoder(CLIPTextConfig config)
    : config_(checked(std::move(config))),
      token_embedding_((Scope(table_) / "text_model.embeddings.token_embedding")
                           .declare("weight", {table_rows(config_), config_.hidden_size},
                                    Init::normal(kEmbeddingStd))),
      position_embedding_((Scope(table_) / "text_model.embeddings.position_embedding")
                              .declare("weight",
                                       {config_.max_position_embeddings, config_.hidden_size},
                                       Init::normal(kEmbeddingStd))),
      layers_([this] {
        const Scope scope = Scope(table_) / "text_model.encoder.layers";
        std::vector<CLIPTextLayer> layers;
        for (int64_t i = 0; i < config_.num_hidden_layers; ++i) {
          layers.emplace_back(scope / i, config_);
        }
        return layers;
      }()),
      final_layer_norm_(Scope(table_) / "text_model.final_layer_norm", config_.hidden_size,
                        config_.layer_norm_eps) {
  if (config_.projection_dim > 0) {
    text_projection_ =
        projection(Scope(table_) / "text_projection", config_.hidden_size, config_.projection_dim,
                   1.0 / std::sqrt(static_cast<double>(config_.hidden_size)),
                   /*bias=*/false);
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
  if (ids.numel() == 0 || ids.is_meta()) return;
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
  const Tensor subset = at::tensor(config_.vocab_subset, ids.options());
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
  for (const CLIPTextLayer& layer : layers_) {
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
