#pragma once
#include "core/params.h"
#include "nn/attention_control.h"
#include "nn/conv.h"
#include "nn/linear.h"
#include "nn/norm.h"

namespace vpd::nn {

// What a block's cross-attention is asked to do beside its output.
struct MapRequest {
  bool wanted = false;
  bool per_head = false;
};

// Multi-head attention with the original's names (to_q, to_k, to_v without bias; to_out.0). Scale
// head_dim^-0.5.
class Attention {
 public:
  Attention(Scope scope, int64_t query_dim, int64_t context_dim, int64_t heads);
  // x [B, M, query_dim], context [B, N, context_dim], mask bool [B, N] or nullopt -> [B, M,
  // query_dim]; with request.wanted, *map receives [B, N, M], or [B, heads, N, M] per head.
  Tensor operator()(const Params& p, const Tensor& x, const Tensor& context,
                    const std::optional<Tensor>& mask, MapRequest request = {},
                    Tensor* map = nullptr) const;
  // The same with probabilities, and so maps, as a control makes them.
  Tensor controlled(const Params& p, const Tensor& x, const Tensor& context,
                    const std::optional<Tensor>& mask, const CrossControl& control,
                    MapRequest request, Tensor* map) const;
  // Self-attention of x [B, M, query_dim]: each row looks where row source[b] does, at itself.
  Tensor looking_as(const Params& p, const Tensor& x, const Tensor& source) const;

 private:
  int64_t heads_;
  double scale_;
  Linear to_q_;
  Linear to_k_;
  Linear to_v_;
  Linear to_out_;
};

// Linear to 2 x 4 x channels, GEGLU, Linear back.
class FeedForward {
 public:
  FeedForward(Scope scope, int64_t channels);
  // [B, M, C] -> [B, M, C]
  Tensor operator()(const Params& p, const Tensor& x) const;
  // Its two halves: [B, M, C] -> [B, M, 4 C], whose backward keeps eight times x, and back.
  Tensor hidden(const Params& p, const Tensor& x) const;
  Tensor out(const Params& p, const Tensor& hidden) const { return out_(p, hidden); }

 private:
  Linear proj_;
  Linear out_;
};

// What the tokens of a forward are: one row of context per output row; image_index tells which
// image a row looks at, as long as the images have not been repeated yet.
struct Context {
  const Tensor& states;                      // [B, N, context_dim]
  const std::optional<Tensor>& mask;         // bool [B, N], true = attend
  const std::optional<Tensor>& image_index;  // int64 [B], or nullopt when rows and images agree
  // Of the rows; one with a self_source needs them all from the start.
  const AttentionControl* control = nullptr;
  // The backward computes the feed-forwards' hidden layers again instead of keeping them.
  bool recompute_feed_forward = false;
};

// Self-attention, cross-attention, GEGLU feed-forward, each pre-normed and residual.
class BasicTransformerBlock {
 public:
  BasicTransformerBlock(Scope scope, int64_t channels, int64_t context_dim, int64_t heads);
  // x [I or B, M, C] -> [B, M, C]: rows are repeated per context.image_index just before they first
  // meet the text.
  Tensor operator()(const Params& p, Tensor x, const Context& context, MapRequest request,
                    Tensor* map) const;

 private:
  Attention attn1_;
  FeedForward ff_;
  Attention attn2_;
  LayerNorm norm1_;
  LayerNorm norm2_;
  LayerNorm norm3_;
  SlotRange own_;
};

// GroupNorm, 1x1 in, `depth` transformer blocks over pixels, 1x1 out, residual (ldm
// SpatialTransformer).
class SpatialTransformer {
 public:
  SpatialTransformer(Scope scope, int64_t channels, int64_t context_dim, int64_t heads,
                     int64_t depth, int64_t groups);
  // x [I or B, C, H, W] -> [B, C, H, W]; maps, if given, receives each block's map reshaped to [B,
  // N, H, W]
  // ([B, heads, N, H, W] per head).
  Tensor operator()(const Params& p, const Tensor& x, const Context& context, MapRequest request,
                    std::vector<Tensor>* maps) const;

 private:
  GroupNorm norm_;
  Conv1x1 proj_in_;
  std::vector<BasicTransformerBlock> blocks_;
  Conv1x1 proj_out_;
};

}  // namespace vpd::nn
