#pragma once
#include <map>
#include <set>
#include <variant>

#include "core/params.h"
#include "nn/conv.h"
#include "nn/norm.h"
#include "nn/vae_blocks.h"

namespace vpd::models {

// What the KL and the VQ autoencoder share. Field names are the original ddconfig's; defaults:
// Stable Diffusion v1.
struct ImageCoderConfig {
  int64_t ch = 128;
  std::vector<int64_t> ch_mult = {1, 2, 4, 4};
  int64_t num_res_blocks = 2;
  int64_t z_channels = 4;
  int64_t in_channels = 3;
  int64_t out_ch = 3;
  int64_t norm_groups = 32;
  bool mid_attention = true;

  int64_t stride() const {
    return int64_t{1} << (ch_mult.size() - 1);
  }  // pixels per latent position
};

// Throws std::invalid_argument for a config that describes no network.
void check_image_coder(const ImageCoderConfig& config, const char* name);

// Collects the inputs and outputs of named blocks while a coder runs:
// "encoder.down.1.block.0:input".
class BlockTaps {
 public:
  explicit BlockTaps(const std::vector<std::string>& wanted)
      : wanted_(wanted.begin(), wanted.end()) {}
  // Throws std::invalid_argument for a tap of a block not in `blocks`.
  void check(const std::vector<std::string>& blocks) const;
  void record(const std::string& block, const char* side, const Tensor& value);
  bool complete() const { return found_.size() == wanted_.size(); }
  std::map<std::string, Tensor> take() { return std::move(found_); }

 private:
  std::set<std::string> wanted_;
  std::map<std::string, Tensor> found_;
};

// A chain of blocks, then GN-SiLU-conv: both halves of an autoencoder.
class ImageCoder {
 public:
  // Image [B, in_channels, H, W] -> [B, moments, H/stride, W/stride]; blocks named "encoder....".
  static ImageCoder encoder(ParamTable& table, const ImageCoderConfig& config, int64_t moments);
  // Latent [B, z_channels, h, w] -> image [B, out_ch, h*stride, w*stride]; blocks named
  // "decoder....".
  static ImageCoder decoder(ParamTable& table, const ImageCoderConfig& config);

  std::vector<std::string> block_names() const;
  Tensor operator()(const Params& p, Tensor h, BlockTaps& taps) const;
  // Runs no further than the last tap.
  void run_taps(const Params& p, Tensor h, BlockTaps& taps) const;

 private:
  using Layer = std::variant<nn::Conv2d, nn::VAEResnetBlock, nn::VAEAttnBlock, nn::VAEDownsample,
                             nn::VAEUpsample>;
  struct Block {
    std::string name;  // "encoder.down.1.block.0"
    Layer layer;
  };

  ImageCoder(std::vector<Block> blocks, nn::GroupNorm norm_out, Block conv_out)
      : blocks_(std::move(blocks)), norm_out_(norm_out), conv_out_(std::move(conv_out)) {}
  static void add_middle(std::vector<Block>& blocks, Scope root, const std::string& prefix,
                         int64_t channels, const ImageCoderConfig& config);
  // The block's output; undefined where the taps were all there is to do and none is left.
  static Tensor apply(const Params& p, const Block& block, const Tensor& h, BlockTaps& taps,
                      bool taps_only);

  std::vector<Block> blocks_;
  nn::GroupNorm norm_out_;
  Block conv_out_;
};

}  // namespace vpd::models
