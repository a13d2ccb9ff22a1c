#pragma once
#include "core/params.h"
#include "nn/linear.h"
#include "nn/norm.h"

namespace vpd::models {

// What the layers of CLIP's two towers differ in.
struct CLIPLayerConfig {
  int64_t hidden_size;
  int64_t intermediate_size;
  int64_t num_attention_heads;
  int64_t num_hidden_layers;  // of the tower; only the first weights depend on it
  std::string hidden_act;     // "quick_gelu" or "gelu"
  double layer_norm_eps;
  bool causal;  // a token attends to itself and what stands before it
};

// Throws std::invalid_argument for sizes that make no layer; `owner` begins the message.
void check_clip_layers(const CLIPLayerConfig& config, std::string_view owner);

// One pre-norm transformer layer of CLIP.
class CLIPLayer {
 public:
  CLIPLayer(Scope scope, const CLIPLayerConfig& config);
  // x [B, N, C]; mask bool, broadcastable to [B, heads, N, N] (true = attend), replaces what
  // `causal` says
  Tensor operator()(const Params& p, const Tensor& x,
                    const std::optional<Tensor>& mask = std::nullopt) const;

  // What tokens can be asked: they may move on by themselves, and be read by tokens beside them.
  struct Seen {
    Tensor x, normed;     // [B, N, C]
    Tensor keys, values;  // [B, heads, N, D]
  };
  Seen see(const Params& p, const Tensor& x) const;
  // These tokens behind the layer: operator() is advance(p, see(p, x), mask).
  Tensor advance(const Params& p, const Seen& seen,
                 const std::optional<Tensor>& mask = std::nullopt) const;
  // Tokens [B, M, C] behind the layer, if they attend to others and not to each other; mask bool,
  // broadcastable to [B, heads, M, N].
  Tensor read(const Params& p, const Tensor& readers, const Seen& seen, const Tensor& mask) const;

 private:
  Tensor split(const Tensor& x) const;  // [B, N, C] -> [B, heads, N, D]
  Tensor step(const Params& p, const Tensor& x, const Tensor& normed, const Seen& seen,
              const std::optional<Tensor>& mask, bool causal) const;
  Tensor activate(const Tensor& x) const;

  int64_t heads_;
  bool quick_gelu_;
  bool causal_;
  nn::Linear k_proj_;
  nn::Linear v_proj_;
  nn::Linear q_proj_;
  nn::Linear out_proj_;
  nn::LayerNorm layer_norm1_;
  nn::Linear fc1_;
  nn::Linear fc2_;
  nn::LayerNorm layer_norm2_;
};

// The layers of a tower, at scope / 0, scope / 1, ...
std::vector<CLIPLayer> clip_layers(Scope scope, const CLIPLayerConfig& config);

// The map into CLIP's joint space, without bias.
nn::Linear clip_projection(Scope scope, int64_t hidden_size, int64_t projection_dim);

}  // namespace vpd::models
