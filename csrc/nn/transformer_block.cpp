#include "nn/transformer_block.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>

#include <cmath>

#include "core/check.h"
#include "core/recompute.h"
#include "nn/layout.h"
#include "ops/cross_attention.h"
#include "ops/geglu.h"

namespace vpd::nn {

namespace {

constexpr int64_t kRowsAtOnce = 1024;

}  // namespace

Attention::Attention(Scope scope, int64_t query_dim, int64_t context_dim, int64_t heads)
    : heads_(heads),
      scale_(1.0 / std::sqrt(static_cast<double>(query_dim / heads))),
      to_q_(scope / "to_q", query_dim, query_dim, /*bias=*/false),
      to_k_(scope / "to_k", context_dim, query_dim, /*bias=*/false),
      to_v_(scope / "to_v", context_dim, query_dim, /*bias=*/false),
      to_out_(scope / "to_out" / 0, query_dim, query_dim) {
  VPD_CHECK(query_dim % heads == 0, "config: ", query_dim, " channels do not divide into ", heads,
            " attention heads (num_heads)");
}

Tensor Attention::operator()(const Params& p, const Tensor& x, const Tensor& context,
                             const std::optional<Tensor>& mask, MapRequest request,
                             Tensor* map) const {
  const Tensor q = to_q_(p, x);
  const Tensor k = to_k_(p, context);
  const Tensor v = to_v_(p, context);
  if (!request.wanted) return to_out_(p, ops::attention(q, k, v, mask, heads_, scale_));
  Tensor out;
  std::tie(out, *map) = ops::cross_attention(q, k, v, mask, heads_, scale_, request.per_head);
  return to_out_(p, out);
}

Tensor Attention::controlled(const Params& p, const Tensor& x, const Tensor& context,
                             const std::optional<Tensor>& mask, const CrossControl& control,
                             MapRequest request, Tensor* map) const {
  const Tensor q = to_q_(p, x);
  const Tensor k = to_k_(p, context);
  const Tensor v = to_v_(p, context);
  // Attention is linear in its probabilities: (A T) v = A (T v). So all is done to the values, in
  // one more attention of the rows that receive.
  const Tensor kept = control.kept.to(v.scalar_type()).unsqueeze(-1);  // [B, N, 1]
  const Tensor own = v * kept;
  Tensor out;
  if (request.wanted) {
    std::tie(out, *map) = ops::cross_attention(q, k, own, mask, heads_, scale_, request.per_head);
  } else {
    out = ops::attention(q, k, own, mask, heads_, scale_);
  }
  const auto sourced = [&](const Tensor& t) { return t.index_select(0, control.sources); };
  const bool receives = control.rows.size(0) > 0;
  if (receives) {
    const Tensor transfer = control.transfer.to(v.scalar_type());
    const Tensor taken = at::matmul(transfer, v.index_select(0, control.rows));
    const std::optional<Tensor> source_mask = mask ? std::optional(sourced(*mask)) : std::nullopt;
    const Tensor given = ops::attention(sourced(q), sourced(k), taken.to(v.scalar_type()),
                                        source_mask, heads_, scale_);
    out = out.index_add(0, control.rows, given.to(out.scalar_type()));
  }
  if (request.wanted) {  // [B, (heads,) N, M]
    const Tensor found = *map;
    *map = found * (request.per_head ? kept.unsqueeze(1) : kept);
    if (receives) {
      Tensor transfer = control.transfer.to(found.scalar_type()).transpose(1, 2);
      if (request.per_head) transfer = transfer.unsqueeze(1);
      const Tensor given = at::matmul(transfer, sourced(found));
      *map = map->index_add(0, control.rows, given.to(map->scalar_type()));
    }
  }
  return to_out_(p, out);
}

Tensor Attention::looking_as(const Params& p, const Tensor& x, const Tensor& source) const {
  const Tensor seen = x.index_select(0, source);
  return to_out_(
      p, ops::attention(to_q_(p, seen), to_k_(p, seen), to_v_(p, x), std::nullopt, heads_, scale_));
}

FeedForward::FeedForward(Scope scope, int64_t channels)
    : proj_(scope / "net" / 0 / "proj", channels, 8 * channels),
      out_(scope / "net" / 2, 4 * channels, channels) {}

Tensor FeedForward::hidden(const Params& p, const Tensor& x) const {
  return ops::geglu(proj_(p, x));
}

Tensor FeedForward::operator()(const Params& p, const Tensor& x) const {
  const int64_t rows = x.size(0) * x.size(1);
  // The hidden layer is eight times as wide as x: the largest tensor of a forward. Without gradient
  // nothing needs it whole, so it is made and used up a block of rows at a time, which also keeps
  // it in the cache.
  if (at::GradMode::is_enabled() || rows <= kRowsAtOnce) return out(p, hidden(p, x));
  std::vector<Tensor> parts;
  for (const Tensor& part : x.reshape({rows, x.size(2)}).split(kRowsAtOnce)) {
    parts.push_back(out(p, hidden(p, part)));
  }
  return at::cat(parts).view(x.sizes());
}

BasicTransformerBlock::BasicTransformerBlock(Scope scope, int64_t channels, int64_t context_dim,
                                             int64_t heads)
    : attn1_(scope / "attn1", channels, channels, heads),
      ff_(scope / "ff", channels),
      attn2_(scope / "attn2", channels, context_dim, heads),
      norm1_(scope / "norm1", channels),
      norm2_(scope / "norm2", channels),
      norm3_(scope / "norm3", channels),
      own_(scope.range()) {}

Tensor BasicTransformerBlock::operator()(const Params& p, Tensor x, const Context& context,
                                         MapRequest request, Tensor* map) const {
  const Tensor normed = norm1_(p, x);
  const Tensor* source = context.control ? context.control->source_at(x.size(1)) : nullptr;
  x = (source ? attn1_.looking_as(p, normed, *source) : attn1_(p, normed, normed, std::nullopt)) +
      x;
  if (x.size(0) != context.states.size(0)) x = x.index_select(0, *context.image_index);
  const Tensor asking = norm2_(p, x);
  const bool edits = context.control && context.control->cross;
  x = (edits ? attn2_.controlled(p, asking, context.states, context.mask, *context.control->cross,
                                 request, map)
             : attn2_(p, asking, context.states, context.mask, request, map)) +
      x;
  if (context.recompute_feed_forward && at::GradMode::is_enabled()) {
    const PureFunction hidden = [norm = norm3_, ff = ff_](const Params& p, const auto& in) {
      return std::vector<Tensor>{ff.hidden(p, norm(p, in[0]))};
    };
    return ff_.out(p, recompute(hidden, p, own_, {x})[0]) + x;
  }
  return ff_(p, norm3_(p, x)) + x;
}

SpatialTransformer::SpatialTransformer(Scope scope, int64_t channels, int64_t context_dim,
                                       int64_t heads, int64_t depth, int64_t groups)
    : norm_(scope / "norm", groups, channels, 1e-6),
      proj_in_(scope / "proj_in", channels, channels),
      blocks_([&] {
        std::vector<BasicTransformerBlock> blocks;
        for (int64_t i = 0; i < depth; ++i) {
          blocks.emplace_back(scope / "transformer_blocks" / i, channels, context_dim, heads);
        }
        return blocks;
      }()),
      proj_out_(scope / "proj_out", channels, channels, Init::zeros()) {}

Tensor SpatialTransformer::operator()(const Params& p, const Tensor& x, const Context& context,
                                      MapRequest request, std::vector<Tensor>* maps) const {
  const int64_t height = x.size(2), width = x.size(3);
  Tensor tokens = proj_in_.on_tokens(p, to_tokens(norm_(p, x)));  // [B, HW, C]
  for (const BasicTransformerBlock& block : blocks_) {
    Tensor map;
    tokens = block(p, tokens, context, request, &map);
    if (request.wanted) maps->push_back(map.unflatten(-1, {height, width}));
  }
  Tensor residual = x;
  if (x.size(0) != tokens.size(0)) residual = x.index_select(0, *context.image_index);
  return to_image(proj_out_.on_tokens(p, tokens), height, width) + residual;
}

}  // namespace vpd::nn
