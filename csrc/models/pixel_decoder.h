#pragma once
#include "models/mask2former_config.h"
#include "nn/conv.h"
#include "nn/deformable_attention.h"
#include "nn/mlp.h"
#include "nn/norm.h"

namespace vpd::models {

// Deformable attention among the pixels of all maps, then a feed-forward part, each residual and
// post-normed.
class DeformableEncoderLayer {
 public:
  DeformableEncoderLayer(Scope scope, const Mask2FormerConfig& config);
  // x [B, S, C], position [S, C] -> [B, S, C]
  Tensor operator()(const Params& p, const Tensor& x, const Tensor& position,
                    const nn::PixelGrid& grid) const;
  const nn::DeformableAttention& attention() const { return self_attn_; }

 private:
  nn::DeformableAttention self_attn_;
  nn::LayerNorm norm1_;
  nn::ReLUFeedForward ffn_;
  nn::LayerNorm norm2_;
};

struct PixelFeatures {
  Tensor mask_features;        // [B, mask_dim, H_0, W_0], at the size of the finest map
  std::vector<Tensor> levels;  // [B, conv_dim, H_i, W_i], coarse to fine, what queries read
};

// The pixel decoder of Mask2Former (Cheng et al. 2022): a deformable encoder over the coarsest maps
// and a feature pyramid from there to the finest. Keys are the original's: input_proj.i.{0,1}.*
// (coarse to fine), transformer.level_embed, transformer.encoder.layers.i.*, adapter_i.*, layer_i.*
// (fine to coarse, from 1), mask_features.*
class PixelDecoder {
 public:
  PixelDecoder(Scope scope, const Mask2FormerConfig& config);
  // maps, fine to coarse, [B, in_channels[i], H_i, W_i].
  PixelFeatures operator()(const Params& p, const std::vector<Tensor>& maps) const;
  void spread_points(const std::vector<Tensor>& tensors) const;

 private:
  struct Projection {
    nn::Conv1x1 conv;
    nn::GroupNorm norm;
  };
  struct Step {  // from one map to the next finer one
    nn::Conv2d adapter;
    nn::GroupNorm adapter_norm;
    nn::Conv2d layer;
    nn::GroupNorm layer_norm;
  };
  std::vector<Tensor> encoded(const Params& p, const std::vector<Tensor>& maps) const;

  int64_t conv_dim_;
  int64_t levels_;  // that go on to the queries
  std::vector<Projection> input_proj_;
  Slot level_embed_;
  std::vector<DeformableEncoderLayer> encoder_;
  std::vector<Step> steps_;
  nn::Conv1x1 mask_features_;
};

}  // namespace vpd::models
