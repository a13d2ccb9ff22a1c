#pragma once
#include "core/params.h"
#include "nn/linear.h"
#include "nn/norm.h"
#include "nn/transformer_block.h"

namespace vpd::models {

// How class scores compare the mean query m with the fixed embedding h of a class.
enum class HeadNorm {
  kUnit,      // <m, h / |h|>
  kCentered,  // the same with h less the mean of all classes
  kRaw,       // <m, h>
  kCosine,    // scale <m / |m|, h / |h|>, the scale is learnt
};

// "h_unit", "h_centered", "raw" or "cosine"; throws std::invalid_argument for another word.
HeadNorm parse_head_norm(const std::string& word);

struct TaggingAdapterConfig {
  int64_t dim = 768;                        // of queries and context
  std::optional<int64_t> text_dim = 768;    // of the tags' tokens; none: no text
  std::optional<int64_t> image_dim = 1024;  // of the image's tokens; none: no image
  int64_t queries = 32;
  int64_t blocks = 2;
  int64_t heads = 8;
  int64_t hidden = 3072;      // of the blocks' MLPs
  bool single_cross = false;  // one cross-attention to text and image side by side
  HeadNorm head_norm = HeadNorm::kUnit;
};

// Tokens that queries read.
struct TokenSource {
  Tensor tokens;               // [B, N, C], N >= 1
  std::optional<Tensor> mask;  // bool [B, N], true = attend; every row has one
  std::optional<Tensor> some;  // bool [B, 1, 1]: rows with something to read; none: all rows
};

// What an adapter makes of a batch.
struct TaggingOutput {
  Tensor context;  // [B, Q, dim]
  // Attention of the queries, averaged over heads and blocks, if asked for: [B, Q, n] over tags, 0
  // where there is none, and [B, Q, N] over the image's tokens. Each sums to 1 over its tokens
  // (with single_cross both together).
  std::optional<Tensor> text_attention;
  std::optional<Tensor> image_attention;
};

// Self-attention of the queries, a cross-attention to each source in turn and an MLP, all
// pre-normed and residual.
class TaggingBlock {
 public:
  // Sources by name and channels.
  using SourceDims = std::vector<std::pair<std::string, int64_t>>;
  TaggingBlock(Scope scope, const TaggingAdapterConfig& config, const SourceDims& sources);
  // x [1 or B, Q, dim] -> [B, Q, dim]; maps, if given, has what queries looked at in each source,
  // [B, N, Q], added to it
  Tensor operator()(const Params& p, Tensor x, int64_t batch,
                    const std::vector<TokenSource>& sources, std::vector<Tensor>* maps) const;

 private:
  struct Attend {
    nn::LayerNorm norm;
    nn::Attention attention;
  };

  Attend self_;
  std::vector<Attend> crosses_;
  nn::LayerNorm norm_;
  nn::Linear fc1_;
  nn::Linear fc2_;
};

// The tagging adapter of "Harnessing text-to-image diffusion for dense prediction" (2024): learnt
// queries read tags and image; what comes out is the U-Net's context and, averaged, scores classes.
// No code or weights of it were released, so the names are our own:
//   queries, image_proj.*, norm.*, out.fc1.*, out.fc2.*, head.scale (cosine only), and in
//   blocks.<i>: self_norm.*, self_attn.*, text_norm.*, text_attn.*, image_norm.*, image_attn.*
//   (both_norm.*, both_attn.* with single_cross), mlp_norm.*, mlp.fc1.*, mlp.fc2.*
class TaggingAdapter {
 public:
  explicit TaggingAdapter(TaggingAdapterConfig config);
  TaggingAdapter(const TaggingAdapter&) = delete;

  const ParamTable& table() const { return table_; }
  // text [B, n, text_dim] and image [B, N, image_dim], both if the config has both; text_mask bool
  // [B, n], true = a tag. An image without tags, by n = 0 or by its mask, gets nothing from text.
  TaggingOutput forward(const Params& p, const std::optional<Tensor>& text,
                        const std::optional<Tensor>& text_mask, const std::optional<Tensor>& image,
                        bool attention = false) const;
  // context [B, Q, dim], classes [K, dim], which no gradient reaches -> logits [B, K]
  Tensor scores(const Params& p, const Tensor& context, const Tensor& classes) const;

 private:
  std::vector<TokenSource> sources(const Params& p, const std::optional<Tensor>& text,
                                   const std::optional<Tensor>& text_mask,
                                   const std::optional<Tensor>& image) const;
  // The maps of all blocks, summed, as a caller knows their tokens.
  void set_attention(TaggingOutput& out, const std::vector<Tensor>& sums, int64_t tags) const;

  TaggingAdapterConfig config_;
  ParamTable table_;
  Slot queries_;
  std::optional<nn::Linear> image_proj_;
  std::vector<TaggingBlock> blocks_;
  nn::LayerNorm norm_;
  nn::Linear fc1_;
  nn::Linear fc2_;
  std::optional<Slot> scale_;
};

}  // namespace vpd::models
