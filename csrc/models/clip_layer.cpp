#include "models/clip_layer.h"

#include <ATen/ops/gelu.h>
#include <ATen/ops/sigmoid.h>

#include <cmath>

#include "core/check.h"
#include "ops/sdpa.h"

namespace vpd::models {

namespace {

// Standard deviations of transformers' CLIP initialisation.
double width_std(int64_t hidden_size) { return 1.0 / std::sqrt(static_cast<double>(hidden_size)); }

double input_std(const CLIPLayerConfig& config) {
  return 1.0 / std::sqrt(2.0 * static_cast<double>(config.hidden_size * config.num_hidden_layers));
}

nn::Linear projection(Scope scope, int64_t in, int64_t out, double std, bool bias = true) {
  return nn::Linear(scope, in, out, bias, Init::normal(std), Init::zeros());
}

}  // namespace

void check_clip_layers(const CLIPLayerConfig& config, std::string_view owner) {
  VPD_CHECK(config.intermediate_size > 0 && config.num_hidden_layers > 0, owner,
            ": intermediate_size and num_hidden_layers must be positive, got ",
            config.intermediate_size, " and ", config.num_hidden_layers);
  VPD_CHECK(config.num_attention_heads > 0 && config.hidden_size > 0 &&
                config.hidden_size % config.num_attention_heads == 0,
            owner, ": hidden_size must divide into num_attention_heads, got ", config.hidden_size,
            " and ", config.num_attention_heads);
  VPD_CHECK(config.hidden_act == "quick_gelu" || config.hidden_act == "gelu", owner,
            ": hidden_act must be quick_gelu or gelu, got '", config.hidden_act, "'");
}

CLIPLayer::CLIPLayer(Scope scope, const CLIPLayerConfig& config)
    : heads_(config.num_attention_heads),
      quick_gelu_(config.hidden_act == "quick_gelu"),
      causal_(config.causal),
      k_proj_(projection(scope / "self_attn.k_proj", config.hidden_size, config.hidden_size,
                         input_std(config))),
      v_proj_(projection(scope / "self_attn.v_proj", config.hidden_size, config.hidden_size,
                         input_std(config))),
      q_proj_(projection(scope / "self_attn.q_proj", config.hidden_size, config.hidden_size,
                         input_std(config))),
      out_proj_(projection(scope / "self_attn.out_proj", config.hidden_size, config.hidden_size,
                           width_std(config.hidden_size))),
      layer_norm1_(scope / "layer_norm1", config.hidden_size, config.layer_norm_eps),
      fc1_(projection(scope / "mlp.fc1", config.hidden_size, config.intermediate_size,
                      width_std(2 * config.hidden_size))),
      fc2_(projection(scope / "mlp.fc2", config.intermediate_size, config.hidden_size,
                      input_std(config))),
      layer_norm2_(scope / "layer_norm2", config.hidden_size, config.layer_norm_eps) {}

Tensor CLIPLayer::split(const Tensor& x) const {
  return x.unflatten(-1, {heads_, -1}).transpose(1, 2);
}

Tensor CLIPLayer::activate(const Tensor& x) const {
  return quick_gelu_ ? x * at::sigmoid(1.702 * x) : at::gelu(x);
}

Tensor CLIPLayer::step(const Params& p, const Tensor& x, const Tensor& normed, const Seen& seen,
                       const std::optional<Tensor>& mask, bool causal) const {
  const Tensor q = split(q_proj_(p, normed));
  const Tensor found = ops::sdpa(q, seen.keys, seen.values, mask, causal,
                                 1.0 / std::sqrt(static_cast<double>(q.size(-1))));
  const Tensor h = x + out_proj_(p, found.transpose(1, 2).flatten(2));
  return h + fc2_(p, activate(fc1_(p, layer_norm2_(p, h))));
}

CLIPLayer::Seen CLIPLayer::see(const Params& p, const Tensor& x) const {
  const Tensor normed = layer_norm1_(p, x);
  return {x, normed, split(k_proj_(p, normed)), split(v_proj_(p, normed))};
}

Tensor CLIPLayer::advance(const Params& p, const Seen& seen,
                          const std::optional<Tensor>& mask) const {
  return step(p, seen.x, seen.normed, seen, mask, /*causal=*/causal_ && !mask.has_value());
}

Tensor CLIPLayer::read(const Params& p, const Tensor& readers, const Seen& seen,
                       const Tensor& mask) const {
  return step(p, readers, layer_norm1_(p, readers), seen, mask, /*causal=*/false);
}

Tensor CLIPLayer::operator()(const Params& p, const Tensor& x,
                             const std::optional<Tensor>& mask) const {
  return advance(p, see(p, x), mask);
}

std::vector<CLIPLayer> clip_layers(Scope scope, const CLIPLayerConfig& config) {
  std::vector<CLIPLayer> layers;
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) layers.emplace_back(scope / i, config);
  return layers;
}

nn::Linear clip_projection(Scope scope, int64_t hidden_size, int64_t projection_dim) {
  return projection(scope, hidden_size, projection_dim, width_std(hidden_size), /*bias=*/false);
}

}  // namespace vpd::models
