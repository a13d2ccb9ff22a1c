#pragma once
#include "core/params.h"
#include "nn/linear.h"
#include "nn/norm.h"

namespace vpd::models {

// Defaults: DINOv2 ViT-B/14.
struct ViTConfig {
  int64_t hidden_size = 768;
  int64_t intermediate_size = 3072;
  int64_t num_hidden_layers = 12;
  int64_t num_attention_heads = 12;
  int64_t image_size = 518;  // the size whose position embeddings are stored
  int64_t patch_size = 14;
  int64_t num_register_tokens = 0;  // beside the class token, without a position
  bool layer_scale = true;          // DINOv2: what a block adds has a factor per channel
  double layer_norm_eps = 1e-6;
};

// One pre-norm transformer block.
class ViTBlock {
 public:
  ViTBlock(Scope scope, const ViTConfig& config);
  Tensor operator()(const Params& p, const Tensor& x) const;  // [B, N, C] -> [B, N, C]

 private:
  Tensor attend(const Params& p, const Tensor& x) const;

  int64_t heads_;
  nn::LayerNorm norm1_;
  nn::Linear qkv_;
  nn::Linear proj_;
  std::optional<Slot> scale1_;
  nn::LayerNorm norm2_;
  nn::Linear fc1_;
  nn::Linear fc2_;
  std::optional<Slot> scale2_;
};

// A plain vision transformer (Dosovitskiy et al. 2021) as DINOv2 has it (Oquab et al. 2023); keys
// are DINOv2's, which are also timm's ("cls_token", "blocks.0.attn.qkv.weight", ...).
class ViT {
 public:
  explicit ViT(ViTConfig config);
  ViT(const ViT&) = delete;

  const ParamTable& table() const { return table_; }
  // Maps [B, C, H / patch, W / patch] after each of `blocks`, which are numbers in ascending order,
  // each through the final norm; nothing is computed past the last.
  //   pixels [B, 3, H, W], normalised as the weights want it; H and W any multiples of patch_size.
  //   For another grid than the stored one the position embeddings are resized bicubically,
  //   with registers antialiased.
  std::vector<Tensor> forward(const Params& p, const Tensor& pixels,
                              const std::vector<int64_t>& blocks) const;

 private:
  void check(const Tensor& pixels, const std::vector<int64_t>& blocks) const;
  Tensor positions(const Params& p, int64_t rows,
                   int64_t columns) const;  // [1, 1 + rows x cols, C]

  ViTConfig config_;
  ParamTable table_;
  Slot cls_token_;
  Slot pos_embed_;
  std::optional<Slot> register_tokens_;
  Slot patch_weight_;
  Slot patch_bias_;
  std::vector<ViTBlock> blocks_;
  nn::LayerNorm norm_;
};

}  // namespace vpd::models
