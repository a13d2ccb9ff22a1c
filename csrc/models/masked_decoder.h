#pragma once
#include "models/mask2former_config.h"
#include "models/pixel_decoder.h"
#include "nn/conv.h"
#include "nn/linear.h"
#include "nn/mlp.h"
#include "nn/multihead_attention.h"
#include "nn/norm.h"

namespace vpd::models {

// One layer: queries read the pixels that their masks let them, then each other, then a
// feed-forward part; each residual and normed.
class MaskedDecoderLayer {
 public:
  // Layer `index` of the decoder at `scope`: the original lists layers by kind.
  MaskedDecoderLayer(Scope scope, int64_t index, const Mask2FormerConfig& config);

  struct Pixels {   // of one level
    Tensor tokens;  // [B, N, C]
    Tensor keys;    // the same plus their positions
  };
  // x [B, Q, C], place [Q, C], attend bool [B, 1, Q, N] -> [B, Q, C]
  Tensor operator()(const Params& p, const Tensor& x, const Tensor& place, const Pixels& pixels,
                    const Tensor& attend) const;

 private:
  bool pre_norm_;
  nn::MultiheadAttention cross_attn_;
  nn::LayerNorm cross_norm_;
  nn::MultiheadAttention self_attn_;
  nn::LayerNorm self_norm_;
  nn::ReLUFeedForward ffn_;
  nn::LayerNorm ffn_norm_;
};

// What queries say before the first layer and after each, or after the last alone.
struct MaskedDecoderOutput {
  std::vector<Tensor> queries;  // [B, Q, hidden_dim], normed: what the others are made from
  std::vector<Tensor> logits;   // [B, Q, num_classes + 1], "no object" last; none without classes
  std::vector<Tensor> masks;    // logits [B, Q, H_0, W_0]
};

// The transformer decoder of Mask2Former with masked attention (Cheng et al. 2022, section 3.2).
// Keys are the original's: query_feat.weight, query_embed.weight, level_embed.weight,
// input_proj.i.*, transformer_{cross_attention,self_attention,ffn}_layers.i.*, decoder_norm.*,
// class_embed.*, mask_embed.layers.i.*
class MaskedDecoder {
 public:
  MaskedDecoder(Scope scope, const Mask2FormerConfig& config);
  // The i-th layer reads level i modulo their number. Gradients do not flow through what masks let
  // queries see.
  MaskedDecoderOutput operator()(const Params& p, const PixelFeatures& features,
                                 bool last_only) const;

 private:
  std::vector<MaskedDecoderLayer::Pixels> pixels(const Params& p,
                                                 const std::vector<Tensor>& levels) const;

  int64_t hidden_dim_;
  Slot query_feat_;
  Slot query_embed_;
  Slot level_embed_;
  std::vector<nn::Conv1x1> input_proj_;  // none where widths agree
  std::vector<MaskedDecoderLayer> layers_;
  nn::LayerNorm norm_;
  std::optional<nn::Linear> class_embed_;
  nn::MLP mask_embed_;
};

}  // namespace vpd::models
