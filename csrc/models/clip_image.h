#pragma once
#include "models/clip_layer.h"

namespace vpd::models {

// Field names are transformers' CLIPVisionConfig's. Defaults: the image tower of CLIP ViT-L/14.
struct CLIPImageConfig {
  int64_t hidden_size = 1024;
  int64_t intermediate_size = 4096;
  int64_t num_hidden_layers = 24;
  int64_t num_attention_heads = 16;
  int64_t image_size = 224;  // the size whose position embeddings are stored
  int64_t patch_size = 14;
  int64_t num_channels = 3;
  int64_t projection_dim = 768;           // 0: no visual_projection
  std::string hidden_act = "quick_gelu";  // or "gelu"
  double layer_norm_eps = 1e-5;
};

// Tokens: the class token, then the patches row by row; N = 1 + (H / patch) * (W / patch).
struct CLIPImageOutput {
  Tensor hidden;                    // [B, N, C], through the final layer norm
  Tensor last;                      // [B, N, C], what the final layer norm reads
  Tensor penultimate;               // [B, N, C], what the last layer reads
  Tensor pooled;                    // [B, C]: hidden of the class token
  std::optional<Tensor> projected;  // [B, projection_dim]
};

// The image tower of CLIP (Radford et al. 2021), a vision transformer; keys as in transformers
// ("vision_model....", "visual_projection.weight").
class CLIPImageEncoder {
 public:
  explicit CLIPImageEncoder(CLIPImageConfig config);
  CLIPImageEncoder(const CLIPImageEncoder&) = delete;

  const ParamTable& table() const { return table_; }
  // pixels [B, num_channels, H, W], normalised as CLIP's; H and W any multiples of patch_size. For
  // another grid than the stored one the position embeddings are resized bicubically.
  CLIPImageOutput forward(const Params& p, const Tensor& pixels) const;

  // Its parts, for those who read the tokens on their way.
  const CLIPImageConfig& config() const { return config_; }
  Tensor embed(const Params& p, const Tensor& pixels) const;  // [B, N, C], what the layers take
  const std::vector<CLIPLayer>& layers() const { return layers_; }
  // Tokens [B, *, C] behind the last layer in CLIP's joint space: [B, *, projection_dim].
  Tensor project(const Params& p, const Tensor& tokens) const;

 private:
  void check_pixels(const Tensor& pixels) const;
  Tensor positions(const Params& p, int64_t rows, int64_t columns) const;  // [1, N, C]

  CLIPImageConfig config_;
  ParamTable table_;
  Slot class_embedding_;
  Slot patch_embedding_;
  Slot position_embedding_;
  nn::LayerNorm pre_layernorm_;
  std::vector<CLIPLayer> layers_;
  nn::LayerNorm post_layernorm_;
  std::optional<nn::Linear> visual_projection_;
};

}  // namespace vpd::models
