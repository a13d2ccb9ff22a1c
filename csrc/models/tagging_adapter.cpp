#include "models/tagging_adapter.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "core/check.h"
#include "ops/unit.h"

namespace vpd::models {

namespace {

constexpr const char* kName = "tagging_adapter";
constexpr double kQueryStd = 0.02;
constexpr double kScaleStart = 1 / 0.07;  // CLIP's (Radford et al. 2021)

TaggingAdapterConfig checked(TaggingAdapterConfig config) {
  constexpr const char* kConfig = "TaggingAdapterConfig";
  VPD_CHECK(config.text_dim || config.image_dim, kConfig,
            ": text_dim or image_dim must be given, got neither");
  VPD_CHECK(config.text_dim.value_or(1) > 0 && config.image_dim.value_or(1) > 0, kConfig,
            ": text_dim and image_dim must be positive, got ", config.text_dim.value_or(1), " and ",
            config.image_dim.value_or(1));
  VPD_CHECK(config.queries > 0 && config.blocks > 0 && config.hidden > 0, kConfig,
            ": queries, blocks and hidden must be positive, got ", config.queries, ", ",
            config.blocks, " and ", config.hidden);
  VPD_CHECK(config.heads > 0 && config.dim > 0 && config.dim % config.heads == 0, kConfig,
            ": dim must divide into heads, got ", config.dim, " and ", config.heads);
  VPD_CHECK(!config.single_cross ||
                (config.text_dim && config.image_dim && *config.text_dim == config.dim),
            kConfig, ": single_cross puts text beside the image, so both must be there and ",
            "text_dim must be dim (", config.dim, "), got text_dim ", config.text_dim.value_or(0),
            " and image_dim ", config.image_dim.value_or(0), " (0: absent)");
  return config;
}

TaggingBlock::SourceDims source_dims(const TaggingAdapterConfig& config) {
  if (config.single_cross) return {{"both", config.dim}};
  TaggingBlock::SourceDims sources;
  if (config.text_dim) sources.emplace_back("text", *config.text_dim);
  if (config.image_dim) sources.emplace_back("image", config.dim);
  return sources;
}

// Throws unless tokens are there if, and only if, the config names their channels.
void check_tokens(const char* name, const std::optional<Tensor>& tokens,
                  const std::optional<int64_t>& dim) {
  VPD_CHECK(dim || !tokens, kName, ": the config has no ", name, "_dim, but ", name,
            " came: ", tokens->sizes());
  VPD_CHECK(!dim || tokens, kName, ": ", name, " [B, N, ", *dim, "] is expected (", name,
            "_dim), got none");
  VPD_CHECK(
      !tokens || (tokens->dim() == 3 && tokens->size(2) == *dim && tokens->is_floating_point()),
      kName, ": ", name, " must be floating point [B, N, ", *dim, "], got ", tokens->dtype(), " ",
      tokens->sizes());
}

}  // namespace

HeadNorm parse_head_norm(const std::string& word) {
  if (word == "h_unit") return HeadNorm::kUnit;
  if (word == "h_centered") return HeadNorm::kCentered;
  if (word == "raw") return HeadNorm::kRaw;
  if (word == "cosine") return HeadNorm::kCosine;
  fail("TaggingAdapterConfig: head_norm must be 'h_unit', 'h_centered', 'raw' or 'cosine', got '",
       word, "'");
}

TaggingBlock::TaggingBlock(Scope scope, const TaggingAdapterConfig& config,
                           const SourceDims& sources)
    : self_{nn::LayerNorm(scope / "self_norm", config.dim),
            nn::Attention(scope / "self_attn", config.dim, config.dim, config.heads)},
      crosses_([&] {
        std::vector<Attend> crosses;
        for (const auto& [name, source_dim] : sources) {
          crosses.push_back(
              {nn::LayerNorm(scope / (name + "_norm"), config.dim),
               nn::Attention(scope / (name + "_attn"), config.dim, source_dim, config.heads)});
        }
        return crosses;
      }()),
      norm_(scope / "mlp_norm", config.dim),
      fc1_(scope / "mlp" / "fc1", config.dim, config.hidden),
      fc2_(scope / "mlp" / "fc2", config.hidden, config.dim) {}

Tensor TaggingBlock::operator()(const Params& p, Tensor x, int64_t batch,
                                const std::vector<TokenSource>& sources,
                                std::vector<Tensor>* maps) const {
  const Tensor normed = self_.norm(p, x);
  x = x + self_.attention(p, normed, normed, std::nullopt);
  // Up to here the first block's queries are the same for all images.
  x = x.expand({batch, -1, -1});
  for (size_t i = 0; i < crosses_.size(); ++i) {
    const auto& [norm, attention] = crosses_[i];
    const TokenSource& source = sources[i];
    Tensor map;
    Tensor read = attention(p, norm(p, x), source.tokens, source.mask,
                            {.wanted = maps != nullptr, .per_head = false}, &map);
    if (source.some) {
      const Tensor none = source.some->logical_not();
      read = read.masked_fill(none, 0);
      if (maps) map = map.masked_fill(none, 0);
    }
    if (maps) {
      Tensor& sum = (*maps)[i];
      sum = sum.defined() ? sum + map : map;
    }
    x = x + read;
  }
  return x + fc2_(p, at::gelu(fc1_(p, norm_(p, x))));
}

TaggingAdapter::TaggingAdapter(TaggingAdapterConfig config)
    : config_(checked(std::move(config))),
      queries_(Scope(table_).declare("queries", {config_.queries, config_.dim},
                                     Init::normal(kQueryStd))),
      image_proj_(config_.image_dim
                      ? std::optional<nn::Linear>(std::in_place, Scope(table_) / "image_proj",
                                                  *config_.image_dim, config_.dim)
                      : std::nullopt),
      blocks_([this] {
        std::vector<TaggingBlock> blocks;
        for (int64_t i = 0; i < config_.blocks; ++i) {
          blocks.emplace_back(Scope(table_) / "blocks" / i, config_, source_dims(config_));
        }
        return blocks;
      }()),
      norm_(Scope(table_) / "norm", config_.dim),
      fc1_(Scope(table_) / "out" / "fc1", config_.dim, config_.dim),
      fc2_(Scope(table_) / "out" / "fc2", config_.dim, config_.dim) {
  if (config_.head_norm == HeadNorm::kCosine) {
    scale_ = (Scope(table_) / "head").declare("scale", {}, Init::constant(kScaleStart));
  }
}

std::vector<TokenSource> TaggingAdapter::sources(const Params& p, const std::optional<Tensor>& text,
                                                 const std::optional<Tensor>& text_mask,
                                                 const std::optional<Tensor>& image) const {
  const at::ScalarType type = p[queries_].scalar_type();
  std::vector<TokenSource> found;
  if (text) {
    TokenSource tags{text->to(type), text_mask, std::nullopt};
    if (text->size(1) == 0) {  // attention takes a token, so one that nobody looks at
      const std::vector<int64_t> sizes{text->size(0), 1};
      tags.tokens = at::zeros({sizes[0], 1, *config_.text_dim}, tags.tokens.options());
      tags.mask = at::zeros(sizes, tags.tokens.options().dtype(at::kBool));
    }
    if (tags.mask && !config_.single_cross) {
      // A row without tags attends to padding, and then forgets what it read.
      const Tensor some = tags.mask->any(1, /*keepdim=*/true);  // [B, 1]
      tags.mask = tags.mask->logical_or(some.logical_not());
      tags.some = some.unsqueeze(-1);
    }
    found.push_back(std::move(tags));
  }
  if (image) found.push_back({(*image_proj_)(p, image->to(type)), std::nullopt, std::nullopt});
  if (!config_.single_cross) return found;

  const Tensor &tags = found[0].tokens, &patches = found[1].tokens;
  TokenSource both{at::cat({tags, patches}, 1), std::nullopt, std::nullopt};
  if (found[0].mask) {
    const Tensor all =
        at::ones({patches.size(0), patches.size(1)}, patches.options().dtype(at::kBool));
    both.mask = at::cat({*found[0].mask, all}, 1);
  }
  return {both};
}

TaggingOutput TaggingAdapter::forward(const Params& p, const std::optional<Tensor>& text,
                                      const std::optional<Tensor>& text_mask,
                                      const std::optional<Tensor>& image, bool attention) const {
  check_tokens("text", text, config_.text_dim);
  check_tokens("image", image, config_.image_dim);
  VPD_CHECK(!text || !image || text->size(0) == image->size(0), kName,
            ": text and image must be of the same batch, got ", text->size(0), " and ",
            image->size(0));
  VPD_CHECK(!image || image->size(1) > 0, kName, ": image must have at least one token, got ",
            image->sizes());
  VPD_CHECK(!text_mask || (text && text_mask->scalar_type() == at::kBool &&
                           text_mask->sizes() == text->sizes().slice(0, 2)),
            kName, ": text_mask must be bool [B, n] as text, got ", text_mask->dtype(), " ",
            text_mask->sizes(), " for text ", text ? text->sizes() : at::IntArrayRef{});

  const std::vector<TokenSource> tokens = sources(p, text, text_mask, image);
  std::vector<Tensor> maps(tokens.size());
  Tensor x = p[queries_].unsqueeze(0);  // [1, Q, dim]
  for (const TaggingBlock& block : blocks_) {
    x = block(p, x, tokens[0].tokens.size(0), tokens, attention ? &maps : nullptr);  // [B, Q, dim]
  }
  TaggingOutput out;
  out.context = fc2_(p, at::gelu(fc1_(p, norm_(p, x))));
  if (attention) set_attention(out, maps, text ? text->size(1) : 0);
  return out;
}

void TaggingAdapter::set_attention(TaggingOutput& out, const std::vector<Tensor>& sums,
                                   int64_t tags) const {
  std::vector<Tensor> maps;  // [B, Q, N] of each source
  for (const Tensor& sum : sums) maps.push_back((sum / config_.blocks).transpose(1, 2));
  if (config_.single_cross) {
    // Without tags one token, which nobody looked at, stood in their place.
    out.image_attention = maps[0].slice(2, std::max<int64_t>(tags, 1));
    out.text_attention = maps[0].slice(2, 0, tags);
    return;
  }
  if (config_.text_dim) out.text_attention = maps.front().slice(2, 0, tags);
  if (config_.image_dim) out.image_attention = maps.back();
}

Tensor TaggingAdapter::scores(const Params& p, const Tensor& context, const Tensor& classes) const {
  VPD_CHECK(classes.dim() == 2 && classes.size(1) == config_.dim && classes.is_floating_point(),
            kName, ": classes must be floating point [K, ", config_.dim, "], got ", classes.dtype(),
            " ", classes.sizes());
  const Tensor mean = context.mean(1);  // [B, dim]
  Tensor fixed = classes.detach();
  if (config_.head_norm == HeadNorm::kCentered) {
    // Not in half precision: what they differ in may be little.
    fixed = fixed.to(at::promote_types(fixed.scalar_type(), at::kFloat));
    fixed = fixed - fixed.mean(0, /*keepdim=*/true);
  }
  fixed = fixed.to(context.scalar_type());
  const auto product = [](const Tensor& m, const Tensor& h) { return m.matmul(h.t()); };
  switch (config_.head_norm) {
    case HeadNorm::kUnit:
    case HeadNorm::kCentered:
      return product(mean, ops::unit(fixed));
    case HeadNorm::kCosine:
      return p[*scale_] * product(ops::unit(mean), ops::unit(fixed));
    default:
      return product(mean, fixed);
  }
}

}  // namespace vpd::models
