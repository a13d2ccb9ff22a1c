#pragma once
#include <map>
#include <memory>

#include "core/params.h"
#include "models/unet_block.h"
#include "nn/conv.h"
#include "nn/linear.h"
#include "nn/norm.h"

namespace vpd::models {

// Field names are the original config's. Defaults: Stable Diffusion v1.
struct UNetConfig {
  int64_t in_channels = 4;
  int64_t out_channels = 4;
  int64_t model_channels = 320;
  std::vector<int64_t> channel_mult = {1, 2, 4, 4};
  int64_t num_res_blocks = 2;
  std::vector<int64_t> attention_resolutions = {
      4, 2, 1};  // strides with transformers; the middle always has one
  int64_t num_heads = 8;
  int64_t transformer_depth = 1;
  int64_t context_dim = 768;
  int64_t norm_groups = 32;
};

// How the maps of layers and heads become one: the plain mean over those of a stride; or the mean
// over all layers but those of the coarsest grid, each head's map resized to the finest one (DAAM,
// models/daam.h), then average-pooled to a stride.
enum class MapFusion { kMean, kDaam };

// What a forward returns; nothing past it is computed.
struct UNetTaps {
  bool noise = false;
  bool features = true;
  std::vector<int64_t> attention = {2, 4};  // strides on the latent grid whose maps are returned
  std::string selector = "up_cross+down_cross";
  bool map_grad = false;  // whether gradients flow through the maps
  MapFusion fusion = MapFusion::kMean;
  bool per_head = false;
  std::vector<std::string> layers;   // if not empty: exactly these layers instead of the selector
  std::vector<int64_t> tokens;       // if not empty: keep only these tokens' maps
  std::optional<int64_t> rows = {};  // maps of the first so many rows only
  std::vector<std::string> block_inputs;
  std::vector<std::string> block_outputs;
};

struct UNetInputs {
  Tensor latents;                      // [I, C, h, w]
  Tensor timesteps;                    // int64 or floating, [] or [B]
  Tensor context;                      // [B, N, context_dim]
  std::optional<Tensor> image_index;   // int64 [B]: the latent of each row
  std::optional<Tensor> context_mask;  // bool [B, N], true = attend
  std::optional<Tensor> time_bias;     // [B, 4 model_channels], added to the time embedding
  // What the attention of some rows takes from others; null: nothing.
  std::shared_ptr<const nn::AttentionControl> control = nullptr;
};

struct UNetOutput {
  std::optional<Tensor> noise;   // [B, out_channels, h, w]
  std::vector<Tensor> features;  // fine to coarse: level l is [B, C_l, h / 2^l, w / 2^l]
  std::map<int64_t, Tensor>
      attention;  // stride -> [B, N, h/stride, w/stride] ([B, heads, N, ..] per head)
  std::map<std::string, Tensor> blocks;  // "output_blocks.5:input" -> tensor
  int64_t stem_rows = 0;                 // that went through what comes before the text is met
};

// One cross-attention layer: where it sits and what it may be called in UNetTaps::layers.
struct AttentionLayer {
  std::string name;   // "output_blocks.3.1.transformer_blocks.0.attn2"
  std::string place;  // "down", "mid" or "up"
  int64_t stride;
};

// The denoiser of latent diffusion (Rombach et al. 2022), with taps.
class UNet : public std::enable_shared_from_this<UNet> {
 public:
  explicit UNet(UNetConfig config);
  UNet(const UNet&) = delete;

  const ParamTable& table() const { return table_; }
  const UNetConfig& config() const { return config_; }
  std::vector<AttentionLayer> attention_layers() const;
  std::vector<int64_t> feature_channels() const;  // fine to coarse
  // A backward that recomputes calls this network again: it keeps it alive if it is held by a
  // shared_ptr.
  UNetOutput forward(const Params& p, const UNetInputs& inputs, const UNetTaps& taps,
                     Recompute recompute = Recompute::kNone) const;

 private:
  Tensor embed_time(const Params& p, const Tensor& timesteps,
                    const std::optional<Tensor>& bias) const;
  void check_inputs(const UNetInputs& inputs) const;
  int64_t size_multiple() const { return int64_t{1} << (config_.channel_mult.size() - 1); }

  UNetConfig config_;
  ParamTable table_;
  nn::Linear time_in_;
  nn::Linear time_out_;
  std::vector<UNetBlock> down_;
  std::vector<UNetBlock> middle_;  // one
  std::vector<UNetBlock> up_;
  nn::GroupNorm out_norm_;
  nn::Conv2d out_conv_;
};

}  // namespace vpd::models
