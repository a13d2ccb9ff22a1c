#include "models/vit.h"

#include <ATen/ops/_upsample_bicubic2d_aa.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/upsample_bicubic2d.h>

#include <cmath>

#include "core/check.h"
#include "nn/layout.h"
#include "ops/sdpa.h"

namespace vpd::models {

namespace {

constexpr double kStd = 0.02;

nn::Linear linear(Scope scope, int64_t in, int64_t out) {
  return nn::Linear(scope, in, out, /*bias=*/true, Init::normal(kStd), Init::zeros());
}

std::optional<Slot> scale(Scope scope, const ViTConfig& config) {
  if (!config.layer_scale) return std::nullopt;
  return scope.declare("gamma", {config.hidden_size}, Init::ones());
}

Tensor scaled(const Params& p, const std::optional<Slot>& by, const Tensor& x) {
  return by ? x * p[*by] : x;
}

ViTConfig checked(ViTConfig config) {
  VPD_CHECK(config.intermediate_size > 0 && config.num_hidden_layers > 0 &&
                config.num_register_tokens >= 0,
            "ViTConfig: intermediate_size and num_hidden_layers must be positive and "
            "num_register_tokens not negative, got ",
            config.intermediate_size, ", ", config.num_hidden_layers, " and ",
            config.num_register_tokens);
  VPD_CHECK(config.num_attention_heads > 0 && config.hidden_size > 0 &&
                config.hidden_size % config.num_attention_heads == 0,
            "ViTConfig: hidden_size must divide into num_attention_heads, got ", config.hidden_size,
            " and ", config.num_attention_heads);
  VPD_CHECK(
      config.patch_size > 0 && config.image_size > 0 && config.image_size % config.patch_size == 0,
      "ViTConfig: image_size must be a positive multiple of patch_size, got ", config.image_size,
      " and ", config.patch_size);
  return config;
}

int64_t stored_grid(const ViTConfig& config) { return config.image_size / config.patch_size; }

std::optional<Slot> registers(Scope scope, const ViTConfig& config) {
  if (config.num_register_tokens == 0) return std::nullopt;
  return scope.declare("register_tokens", {1, config.num_register_tokens, config.hidden_size},
                       Init::normal(kStd));
}

std::vector<ViTBlock> layers(Scope scope, const ViTConfig& config) {
  std::vector<ViTBlock> found;
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) found.emplace_back(scope / i, config);
  return found;
}

}  // namespace

ViTBlock::ViTBlock(Scope scope, const ViTConfig& config)
    : heads_(config.num_attention_heads),
      norm1_(scope / "norm1", config.hidden_size, config.layer_norm_eps),
      qkv_(linear(scope / "attn.qkv", config.hidden_size, 3 * config.hidden_size)),
      proj_(linear(scope / "attn.proj", config.hidden_size, config.hidden_size)),
      scale1_(scale(scope / "ls1", config)),
      norm2_(scope / "norm2", config.hidden_size, config.layer_norm_eps),
      fc1_(linear(scope / "mlp.fc1", config.hidden_size, config.intermediate_size)),
      fc2_(linear(scope / "mlp.fc2", config.intermediate_size, config.hidden_size)),
      scale2_(scale(scope / "ls2", config)) {}

Tensor ViTBlock::attend(const Params& p, const Tensor& x) const {
  // [B, N, 3 C] -> q, k, v [B, heads, N, D]
  const Tensor qkv = qkv_(p, x).unflatten(-1, {3, heads_, -1}).permute({2, 0, 3, 1, 4});
  const Tensor out =
      ops::sdpa(qkv.select(0, 0), qkv.select(0, 1), qkv.select(0, 2), /*mask=*/std::nullopt,
                /*causal=*/false, 1.0 / std::sqrt(static_cast<double>(qkv.size(-1))));
  return proj_(p, out.transpose(1, 2).flatten(2));
}

Tensor ViTBlock::operator()(const Params& p, const Tensor& x) const {
  const Tensor h = x + scaled(p, scale1_, attend(p, norm1_(p, x)));
  return h + scaled(p, scale2_, fc2_(p, at::gelu(fc1_(p, norm2_(p, h)))));
}

ViT::ViT(ViTConfig config)
    : config_(checked(config)),
      cls_token_(
          Scope(table_).declare("cls_token", {1, 1, config_.hidden_size}, Init::normal(kStd))),
      pos_embed_(Scope(table_).declare(
          "pos_embed", {1, 1 + stored_grid(config_) * stored_grid(config_), config_.hidden_size},
          Init::normal(kStd))),
      register_tokens_(registers(Scope(table_), config_)),
      patch_weight_((Scope(table_) / "patch_embed.proj")
                        .declare("weight",
                                 {config_.hidden_size, 3, config_.patch_size, config_.patch_size},
                                 Init::normal(kStd))),
      patch_bias_((Scope(table_) / "patch_embed.proj")
                      .declare("bias", {config_.hidden_size}, Init::zeros())),
      blocks_(layers(Scope(table_) / "blocks", config_)),
      norm_(Scope(table_) / "norm", config_.hidden_size, config_.layer_norm_eps) {}

void ViT::check(const Tensor& pixels, const std::vector<int64_t>& blocks) const {
  VPD_CHECK(pixels.dim() == 4 && pixels.size(1) == 3 && pixels.is_floating_point(),
            "vit: pixels must be float [B, 3, H, W], got ", pixels.dtype(), " ", pixels.sizes());
  const auto fits = [&](int64_t size) { return size > 0 && size % config_.patch_size == 0; };
  VPD_CHECK(fits(pixels.size(2)) && fits(pixels.size(3)),
            "vit: height and width must be multiples of ", config_.patch_size,
            " (patch_size), got ", pixels.size(2), "x", pixels.size(3));
  int64_t last = -1;
  for (const int64_t block : blocks) {
    VPD_CHECK(block > last && block < config_.num_hidden_layers,
              "vit: blocks must ascend within 0..", config_.num_hidden_layers - 1, ", got ", block,
              " after ", last);
    last = block;
  }
  VPD_CHECK(!blocks.empty(), "vit: blocks must name at least one, got none");
}

Tensor ViT::positions(const Params& p, int64_t rows, int64_t columns) const {
  const Tensor& stored = p[pos_embed_];
  const int64_t grid = stored_grid(config_);
  if (rows == grid && columns == grid) return stored;
  const Tensor image = nn::to_image(stored.slice(1, 1), grid, grid);
  // As the authors have it: those with registers were made for antialiased positions.
  const Tensor resized =
      register_tokens_ ? at::_upsample_bicubic2d_aa(image, {rows, columns}, /*align_corners=*/false)
                       : at::upsample_bicubic2d(image, {rows, columns}, /*align_corners=*/false);
  return at::cat({stored.slice(1, 0, 1), nn::to_tokens(resized)}, 1);
}

std::vector<Tensor> ViT::forward(const Params& p, const Tensor& pixels,
                                 const std::vector<int64_t>& blocks) const {
  check(pixels, blocks);
  const Tensor& kernel = p[patch_weight_];
  const Tensor patches = at::conv2d(pixels.to(kernel.scalar_type()), kernel, p[patch_bias_],
                                    config_.patch_size);  // [B, C, rows, columns]
  const int64_t batch = patches.size(0), rows = patches.size(2), columns = patches.size(3);
  Tensor x = at::cat({p[cls_token_].expand({batch, 1, -1}), patches.flatten(2).transpose(1, 2)}, 1);
  x = x + positions(p, rows, columns);
  if (register_tokens_) {
    const Tensor own = p[*register_tokens_].expand({batch, -1, -1});
    x = at::cat({x.slice(1, 0, 1), own, x.slice(1, 1)}, 1);
  }
  std::vector<Tensor> maps;
  for (int64_t i = 0; i <= blocks.back(); ++i) {
    x = blocks_[static_cast<size_t>(i)](p, x);
    if (i != blocks[maps.size()]) continue;
    const Tensor tokens = norm_(p, x).slice(1, 1 + config_.num_register_tokens);
    maps.push_back(nn::to_image(tokens, rows, columns));
  }
  return maps;
}

}  // namespace vpd::models
