#pragma once
#include "models/clip_layer.h"

namespace vpd::models {

// Field names are transformers' CLIPTextConfig's. Defaults: the text tower of CLIP ViT-L/14, as in
// Stable Diffusion v1.
struct CLIPTextConfig {
  int64_t vocab_size = 49408;
  int64_t hidden_size = 768;
  int64_t intermediate_size = 3072;
  int64_t num_hidden_layers = 12;
  int64_t num_attention_heads = 12;
  int64_t max_position_embeddings = 77;
  std::string hidden_act = "quick_gelu";  // or "gelu"
  double layer_norm_eps = 1e-5;
  int64_t eos_token_id = 49407;
  int64_t projection_dim = 0;  // 0: no text_projection
  // Sorted ids with a row of their own; every other id shares one last row. Empty: a full table.
  std::vector<int64_t> vocab_subset;
};

struct CLIPTextOutput {
  Tensor hidden;       // [B, N, C], through the final layer norm
  Tensor penultimate;  // [B, N, C], what the last layer reads
  Tensor pooled;  // [B, C]: hidden at each row's first eos, or at its last token if it has none
  std::optional<Tensor> projected;  // [B, projection_dim]
};

// The text tower of CLIP (Radford et al. 2021); keys as in transformers ("text_model....",
// "text_projection.weight").
class CLIPTextEncoder {
 public:
  explicit CLIPTextEncoder(CLIPTextConfig config);
  CLIPTextEncoder(const CLIPTextEncoder&) = delete;

  const ParamTable& table() const { return table_; }
  // ids int64 [B, N], N <= max_position_embeddings; mask bool [B, N] (true = a token, false =
  // padding that nobody attends to), as transformers' attention_mask. Attention is causal with or
  // without it.
  CLIPTextOutput forward(const Params& p, const Tensor& ids,
                         const std::optional<Tensor>& mask) const;

 private:
  void check_inputs(const Tensor& ids, const std::optional<Tensor>& mask) const;
  Tensor embedding_rows(const Tensor& ids) const;

  CLIPTextConfig config_;
  ParamTable table_;
  Slot token_embedding_;
  Slot position_embedding_;
  std::vector<CLIPLayer> layers_;
  nn::LayerNorm final_layer_norm_;
  std::optional<nn::Linear> text_projection_;
};

}  // namespace vpd::models
