#pragma once
#include "models/mask2former.h"

namespace vpd::models {

// z, the embedding of a mask: what its pixels' mask features are on average, joined with its query.
//   MLP(LN(Linear(LN(pooled)) + query))
// Keys are the original's: pool_proj.{0,1}.*, mask_embed.0.*, mask_embed.1.layers.i.*, logit_scale
class PooledMaskEmbed {
 public:
  PooledMaskEmbed(Scope scope, const Mask2FormerConfig& config, int64_t projection_dim);
  // features [B, mask_dim, H, W], masks logits [B, Q, H, W], which no gradient reaches, queries
  // [B, Q, hidden_dim] -> [B, Q, projection_dim]
  Tensor operator()(const Params& p, const Tensor& features, const Tensor& masks,
                    const Tensor& queries) const;
  // What multiplies cosines: exp(logit_scale), at most 100. [], float32 at least
  Tensor scale(const Params& p) const;

 private:
  nn::LayerNorm pool_norm_;
  nn::Linear pool_proj_;
  nn::LayerNorm embed_norm_;
  nn::MLP embed_;
  Slot logit_scale_;
};

struct OdiseOutput {
  // What the head of Mask2Former says; without classes, logits are always 1 for "object" and 0 for
  // "no object".
  MaskedDecoderOutput decoded;
  std::vector<Tensor> embeddings;  // z [B, Q, projection_dim], of the same outputs
  Tensor scale;                    // []
};

// The head of ODISE (Xu et al. 2023, section 3.3): that of Mask2Former, whose masks have embeddings
// which are compared with those of words. Keys below "sem_seg_head.": those of Mask2Former and
// predictor.post_mask_embed.*
class OdiseHead : public Mask2FormerHead {
 public:
  OdiseHead(Mask2FormerConfig config, int64_t projection_dim);
  OdiseOutput decode(const Params& p, const PixelFeatures& features, bool last_only) const;

 private:
  PooledMaskEmbed post_mask_embed_;
};

struct OdiseTextConfig {
  int64_t text_dim = 768;                       // of the text encoder's embeddings
  std::optional<int64_t> projection_dim = 256;  // of the masks'; none: they are of text_dim
  bool null = true;                             // whether "nothing of these" is learnt as well
};

// The words' side: their embeddings, brought to the masks', and the scores of categories. Keys are
// the original's below "category_head." or, without null, "word_head.": text_proj.*, null_embed
class OdiseTextHead {
 public:
  explicit OdiseTextHead(OdiseTextConfig config);
  OdiseTextHead(const OdiseTextHead&) = delete;

  const ParamTable& table() const { return table_; }
  // [..., text_dim] -> [..., projection_dim]
  Tensor project(const Params& p, const Tensor& texts) const;
  // Scores of each output's embeddings z [B, Q, D] by ops::category_logits: [B, Q, K], or
  // [B, Q, K + 1] with null last. texts [S, text_dim]
  std::vector<Tensor> logits(const Params& p, const std::vector<Tensor>& embeddings,
                             const Tensor& texts, std::vector<int64_t> categories,
                             const Tensor& scale) const;

 private:
  OdiseTextConfig config_;
  ParamTable table_;
  std::optional<nn::Linear> text_proj_;
  std::optional<Slot> null_embed_;
};

}  // namespace vpd::models
