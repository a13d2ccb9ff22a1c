#include "models/unet.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/silu.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/check.h"
#include "diffusion/timestep_embedding.h"
#include "models/unet_plan.h"
#include "models/unet_stem.h"
#include "nn/layout.h"

namespace vpd::models {

namespace {

constexpr double kOutEps = 1e-5;

UNetConfig checked(UNetConfig config) {
  VPD_CHECK(!config.channel_mult.empty(), "UNetConfig: channel_mult must not be empty");
  VPD_CHECK(config.channel_mult.front() == 1,
            "UNetConfig: channel_mult must start with 1 (the output convolution takes "
            "model_channels), got ",
            config.channel_mult.front());
  VPD_CHECK(config.model_channels > 0 && config.model_channels % 2 == 0,
            "UNetConfig: model_channels must be a positive even number, got ",
            config.model_channels);
  VPD_CHECK(config.num_res_blocks >= 1 && config.transformer_depth >= 1,
            "UNetConfig: num_res_blocks and transformer_depth must be at least 1, got ",
            config.num_res_blocks, " and ", config.transformer_depth);
  return config;
}

std::shared_ptr<const nn::AttentionControl> moved(
    const std::shared_ptr<const nn::AttentionControl>& control, at::Device device) {
  return control ? std::make_shared<const nn::AttentionControl>(control->to(device)) : nullptr;
}

bool contains(const std::vector<int64_t>& values, int64_t value) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

}  // namespace

UNet::UNet(UNetConfig config)
    : config_(checked(std::move(config))),
      time_in_(Scope(table_) / "time_embed" / 0, config_.model_channels,
               4 * config_.model_channels),
      time_out_(Scope(table_) / "time_embed" / 2, 4 * config_.model_channels,
                4 * config_.model_channels),
      // The vectors are filled here so that parameters are declared in the order of the original's
      // modules.
      down_([this] {
        const Scope root(table_);
        const int64_t embedding = 4 * config_.model_channels, groups = config_.norm_groups;
        const int64_t levels = config_.channel_mult.size();
        std::vector<UNetBlock> blocks;
        const auto add = [&](int64_t level) -> UNetBlock& {
          blocks.push_back(
              {.name = "input_blocks." + std::to_string(blocks.size()), .level = level});
          return blocks.back();
        };
        const auto scope = [&] { return root / blocks.back().name; };
        int64_t channels = config_.model_channels;
        add(0).conv.emplace(scope() / 0, config_.in_channels, channels);
        for (int64_t level = 0; level < levels; ++level) {
          const int64_t out = config_.channel_mult[level] * config_.model_channels;
          for (int64_t i = 0; i < config_.num_res_blocks; ++i) {
            UNetBlock& block = add(level);
            block.res.emplace(scope() / 0, channels, out, embedding, groups);
            channels = out;
            if (contains(config_.attention_resolutions, int64_t{1} << level)) {
              block.transformer.emplace(scope() / 1, channels, config_.context_dim,
                                        config_.num_heads, config_.transformer_depth, groups);
            }
          }
          if (level + 1 < levels) {
            add(level + 1).conv.emplace(scope() / 0 / "op", channels, channels,
                                        nn::Conv2dOptions{.stride = 2});
          }
        }
        return blocks;
      }()),
      middle_([this] {
        const int64_t levels = config_.channel_mult.size();
        const int64_t channels = config_.channel_mult.back() * config_.model_channels;
        const int64_t embedding = 4 * config_.model_channels;
        const Scope scope = Scope(table_) / "middle_block";
        std::vector<UNetBlock> blocks(1);
        UNetBlock& block = blocks.front();
        block.name = "middle_block";
        block.level = levels - 1;
        block.res.emplace(scope / 0, channels, channels, embedding, config_.norm_groups);
        block.transformer.emplace(scope / 1, channels, config_.context_dim, config_.num_heads,
                                  config_.transformer_depth, config_.norm_groups);
        block.res2.emplace(scope / 2, channels, channels, embedding, config_.norm_groups);
        return blocks;
      }()),
      up_([this] {
        const Scope root(table_);
        const int64_t base = config_.model_channels, levels = config_.channel_mult.size();
        // Channels of what the way down has put on the stack.
        std::vector<int64_t> skips = {base};
        for (int64_t level = 0; level < levels; ++level) {
          const int64_t out = config_.channel_mult[level] * base;
          skips.insert(skips.end(), config_.num_res_blocks, out);
          if (level + 1 < levels) skips.push_back(out);
        }
        std::vector<UNetBlock> blocks;
        int64_t channels = config_.channel_mult.back() * base;
        for (int64_t level = levels - 1; level >= 0; --level) {
          const int64_t out = config_.channel_mult[level] * base;
          for (int64_t i = 0; i <= config_.num_res_blocks; ++i) {
            const std::string name = "output_blocks." + std::to_string(blocks.size());
            UNetBlock block{.name = name, .level = level};
            const Scope scope = root / name;
            block.res.emplace(scope / 0, channels + skips.back(), out, 4 * base,
                              config_.norm_groups);
            skips.pop_back();
            channels = out;
            if (contains(config_.attention_resolutions, int64_t{1} << level)) {
              block.transformer.emplace(scope / 1, out, config_.context_dim, config_.num_heads,
                                        config_.transformer_depth, config_.norm_groups);
            }
            const bool last = i == config_.num_res_blocks;
            block.is_tap = level > 0 ? i + 1 == config_.num_res_blocks : last;
            if (level > 0 && last) {
              block.up.emplace(scope / (block.transformer ? 2 : 1) / "conv", out, out);
            }
            blocks.push_back(std::move(block));
          }
        }
        return blocks;
      }()),
      out_norm_(Scope(table_) / "out" / 0, config_.norm_groups, config_.model_channels, kOutEps),
      out_conv_(Scope(table_) / "out" / 2, config_.model_channels, config_.out_channels,
                {.init = Init::zeros()}) {
  for (std::vector<UNetBlock>* blocks : {&down_, &middle_, &up_}) {
    for (UNetBlock& block : *blocks) block.own = table_.range(block.name);
  }
}

std::vector<AttentionLayer> UNet::attention_layers() const {
  std::vector<AttentionLayer> layers;
  const auto add = [&](const std::vector<UNetBlock>& blocks, const char* place) {
    for (const UNetBlock& block : blocks) {
      if (!block.transformer) continue;
      for (int64_t i = 0; i < config_.transformer_depth; ++i) {
        layers.push_back(
            {block.transformer_name() + ".transformer_blocks." + std::to_string(i) + ".attn2",
             place, int64_t{1} << block.level});
      }
    }
  };
  add(down_, "down");
  add(middle_, "mid");
  add(up_, "up");
  return layers;
}

std::vector<int64_t> UNet::feature_channels() const {
  std::vector<int64_t> channels;
  for (const int64_t mult : config_.channel_mult) channels.push_back(mult * config_.model_channels);
  return channels;
}

void UNet::check_inputs(const UNetInputs& in) const {
  VPD_CHECK(in.latents.dim() == 4 && in.latents.size(1) == config_.in_channels,
            "unet: latents must be [I, ", config_.in_channels, ", h, w], got ", in.latents.sizes());
  const int64_t multiple = size_multiple();
  VPD_CHECK(in.latents.size(2) > 0 && in.latents.size(3) > 0 &&
                in.latents.size(2) % multiple == 0 && in.latents.size(3) % multiple == 0,
            "unet: latent height and width must be positive multiples of ", multiple, ", got ",
            in.latents.size(2), " x ", in.latents.size(3));
  VPD_CHECK(in.latents.is_floating_point() && in.context.is_floating_point(),
            "unet: latents and context must be floating point, got ", in.latents.dtype(), " and ",
            in.context.dtype());
  VPD_CHECK(
      in.context.dim() == 3 && in.context.size(2) == config_.context_dim && in.context.size(1) > 0,
      "unet: context must be [B, N, ", config_.context_dim, "], got ", in.context.sizes());
  const int64_t images = in.latents.size(0), rows = in.context.size(0);
  if (in.image_index) {
    VPD_CHECK(in.image_index->dim() == 1 && in.image_index->size(0) == rows &&
                  in.image_index->scalar_type() == at::kLong,
              "unet: image_index must be int64 [", rows, "], got ", in.image_index->dtype(), " ",
              in.image_index->sizes());
  } else {
    VPD_CHECK(images == rows || images == 1, "unet: ", images, " latents for ", rows,
              " rows of context need an image_index");
  }
  VPD_CHECK(in.timesteps.dim() == 0 || (in.timesteps.dim() == 1 && (in.timesteps.size(0) == rows ||
                                                                    in.timesteps.size(0) == 1)),
            "unet: timesteps must be one number or [", rows, "], got ", in.timesteps.sizes());
  if (in.context_mask) {
    VPD_CHECK(in.context_mask->scalar_type() == at::kBool &&
                  in.context_mask->sizes() == in.context.sizes().slice(0, 2),
              "unet: context_mask must be bool [", rows, ", ", in.context.size(1), "], got ",
              in.context_mask->dtype(), " ", in.context_mask->sizes());
  }
  if (in.time_bias) {
    VPD_CHECK(in.time_bias->dim() == 2 && in.time_bias->size(0) == rows &&
                  in.time_bias->size(1) == 4 * config_.model_channels,
              "unet: time_bias must be [", rows, ", ", 4 * config_.model_channels, "], got ",
              in.time_bias->sizes());
  }
  if (in.control) in.control->check(rows, in.context.size(1));
}

// timesteps [S], bias [S, 4 model_channels] -> [S, 4 model_channels], through the SiLU that every
// residual block applies to it.
Tensor UNet::embed_time(const Params& p, const Tensor& timesteps,
                        const std::optional<Tensor>& bias) const {
  const Tensor sinusoid = diffusion::timestep_embedding(timesteps, config_.model_channels);
  Tensor embedding = time_out_(p, at::silu(time_in_(p, sinusoid.to(p[Slot(0)].scalar_type()))));
  if (bias) embedding = embedding + bias->to(embedding.scalar_type());
  return at::silu(embedding);
}

UNetOutput UNet::forward(const Params& p, const UNetInputs& in, const UNetTaps& taps,
                         Recompute recompute) const {
  check_inputs(in);
  const UNetPlan plan(taps, attention_layers(), down_.size(), up_.size(), config_.num_res_blocks,
                      config_.channel_mult.size());
  const auto dtype = p[Slot(0)].scalar_type();
  const Tensor context = in.context.to(dtype);
  const int64_t rows = in.context.size(0);

  // One latent may serve several rows. While nothing depends on the row (text not met yet) it is
  // computed once per timestep; the first cross-attention repeats it.
  const UNetStem stem = shared_stem(in);
  const std::optional<Tensor>& repeat = stem.repeat;
  Tensor h = nn::channels_last(stem.latents.to(dtype));
  const UNetBlock::Call call{embed_time(p, stem.timesteps, in.time_bias),
                             context,
                             in.context_mask,
                             repeat,
                             recompute,
                             weak_from_this().lock(),
                             moved(in.control, stem.latents.device())};

  UNetOutput out;
  out.stem_rows = h.size(0);
  MapAccumulator maps(taps);
  int64_t position = 0;
  const auto run = [&](const UNetBlock& block, Tensor skip, bool skip_up) {
    if (plan.taps_input(block.name)) {
      if (skip.defined()) h = UNetBlock::joined(h, std::exchange(skip, {}), repeat);
      out.blocks[block.name + ":input"] = h;
    }
    if (position == plan.last && !plan.runs_last) return;
    const auto wanted = plan.map_layers(block.transformer_name());
    const int64_t stride = int64_t{1} << block.level;
    const auto found =
        block(p, h, skip, call, wanted.empty() ? nn::MapRequest{} : maps.request(stride));
    h = found[0];
    for (const auto& [depth, strides] : wanted) maps.add(found[1 + depth], strides, stride);
    if (block.is_tap && taps.features) out.features.insert(out.features.begin(), h);
    if (block.up && !skip_up) h = block.upsampled(p, h, call);
    if (plan.taps_output(block.name)) out.blocks[block.name + ":output"] = h;
  };

  std::vector<Tensor> skips;
  for (const UNetBlock& block : down_) {
    if (position > plan.last) break;
    run(block, {}, false);
    skips.push_back(h);
    ++position;
  }
  if (position <= plan.last) run(middle_.front(), {}, false);
  ++position;
  for (const UNetBlock& block : up_) {
    if (position > plan.last) break;
    const Tensor skip = std::move(skips.back());
    skips.pop_back();
    run(block, skip, position == plan.last && !plan.taps_output(block.name));
    ++position;
  }
  if (taps.noise) out.noise = out_conv_(p, out_norm_.silu(p, h));
  out.attention = maps.means();
  // A network asked only for what lies before its first cross-attention never met the rows.
  if (repeat) {
    for (auto& [name, tensor] : out.blocks) {
      if (tensor.size(0) != rows) tensor = tensor.index_select(0, *repeat);
    }
  }
  return out;
}

}  // namespace vpd::models
