#include "models/image_coder.h"

#include <algorithm>

#include "core/check.h"
#include "nn/layout.h"

namespace vpd::models {

namespace {

constexpr double kNormEps = 1e-6;

std::string numbered(const std::string& prefix, int64_t index) {
  return prefix + "." + std::to_string(index);
}

}  // namespace

void check_image_coder(const ImageCoderConfig& config, const char* name) {
  VPD_CHECK(!config.ch_mult.empty() && config.ch_mult.size() < 16 &&
                std::all_of(config.ch_mult.begin(), config.ch_mult.end(),
                            [](int64_t mult) { return mult > 0; }),
            name, ": ch_mult must be 1 to 15 positive factors, got ", config.ch_mult.size(),
            " entries");
  VPD_CHECK(config.ch > 0 && config.num_res_blocks > 0 && config.z_channels > 0 &&
                config.in_channels > 0 && config.out_ch > 0,
            name, ": ch, num_res_blocks, z_channels, in_channels and out_ch must be positive, got ",
            config.ch, ", ", config.num_res_blocks, ", ", config.z_channels, ", ",
            config.in_channels, ", ", config.out_ch);
}

void BlockTaps::check(const std::vector<std::string>& blocks) const {
  for (const std::string& tap : wanted_) {
    const size_t colon = tap.rfind(':');
    const std::string side = colon == std::string::npos ? "" : tap.substr(colon + 1);
    VPD_CHECK(side == "input" || side == "output",
              "taps: expected '<block>:input' or '<block>:output', got '", tap, "'");
    const std::string block = tap.substr(0, colon);
    VPD_CHECK(std::find(blocks.begin(), blocks.end(), block) != blocks.end(), "taps: no block '",
              block, "'; blocks run from ", blocks.front(), " to ", blocks.back(),
              ", see block_names()");
  }
}

void BlockTaps::record(const std::string& block, const char* side, const Tensor& value) {
  if (wanted_.empty()) return;
  const std::string tap = block + ":" + side;
  if (wanted_.count(tap) > 0) found_[tap] = value;
}

void ImageCoder::add_middle(std::vector<Block>& blocks, Scope root, const std::string& prefix,
                            int64_t channels, const ImageCoderConfig& config) {
  const auto add_res = [&](const char* name) {
    blocks.push_back({prefix + name, nn::VAEResnetBlock(root / (prefix + name), channels, channels,
                                                        config.norm_groups)});
  };
  add_res(".mid.block_1");
  if (config.mid_attention) {
    const std::string name = prefix + ".mid.attn_1";
    blocks.push_back({name, nn::VAEAttnBlock(root / name, channels, config.norm_groups)});
  }
  add_res(".mid.block_2");
}

ImageCoder ImageCoder::encoder(ParamTable& table, const ImageCoderConfig& config, int64_t moments) {
  const Scope root(table);
  const int64_t levels = static_cast<int64_t>(config.ch_mult.size());
  std::vector<Block> blocks;
  int64_t channels = config.ch;
  blocks.push_back(
      {"encoder.conv_in", nn::Conv2d(root / "encoder.conv_in", config.in_channels, channels)});
  for (int64_t level = 0; level < levels; ++level) {
    const std::string place = numbered("encoder.down", level);
    const int64_t out = config.ch * config.ch_mult[level];
    for (int64_t i = 0; i < config.num_res_blocks; ++i) {
      const std::string name = numbered(place + ".block", i);
      blocks.push_back({name, nn::VAEResnetBlock(root / name, channels, out, config.norm_groups)});
      channels = out;
    }
    if (level + 1 < levels) {
      const std::string name = place + ".downsample";
      blocks.push_back({name, nn::VAEDownsample(root / name, channels)});
    }
  }
  add_middle(blocks, root, "encoder", channels, config);
  nn::GroupNorm norm_out(root / "encoder.norm_out", config.norm_groups, channels, kNormEps);
  nn::Conv2d conv_out(root / "encoder.conv_out", channels, moments);
  return {std::move(blocks), norm_out, {"encoder.conv_out", conv_out}};
}

ImageCoder ImageCoder::decoder(ParamTable& table, const ImageCoderConfig& config) {
  const Scope root(table);
  const int64_t levels = static_cast<int64_t>(config.ch_mult.size());
  std::vector<Block> blocks;
  int64_t channels = config.ch * config.ch_mult.back();
  blocks.push_back(
      {"decoder.conv_in", nn::Conv2d(root / "decoder.conv_in", config.z_channels, channels)});
  add_middle(blocks, root, "decoder", channels, config);
  for (int64_t level = levels - 1; level >= 0; --level) {
    const std::string place = numbered("decoder.up", level);
    const int64_t out = config.ch * config.ch_mult[level];
    for (int64_t i = 0; i <= config.num_res_blocks; ++i) {
      const std::string name = numbered(place + ".block", i);
      blocks.push_back({name, nn::VAEResnetBlock(root / name, channels, out, config.norm_groups)});
      channels = out;
    }
    if (level > 0) {
      const std::string name = place + ".upsample";
      blocks.push_back({name, nn::VAEUpsample(root / name, channels)});
    }
  }
  nn::GroupNorm norm_out(root / "decoder.norm_out", config.norm_groups, channels, kNormEps);
  nn::Conv2d conv_out(root / "decoder.conv_out", channels, config.out_ch);
  return {std::move(blocks), norm_out, {"decoder.conv_out", conv_out}};
}

std::vector<std::string> ImageCoder::block_names() const {
  std::vector<std::string> names;
  for (const Block& block : blocks_) names.push_back(block.name);
  names.push_back(conv_out_.name);
  return names;
}

Tensor ImageCoder::apply(const Params& p, const Block& block, const Tensor& h, BlockTaps& taps,
                         bool taps_only) {
  taps.record(block.name, "input", h);
  if (taps_only && taps.complete()) return {};
  const Tensor out = std::visit([&](const auto& layer) { return layer(p, h); }, block.layer);
  taps.record(block.name, "output", out);
  return out;
}

Tensor ImageCoder::operator()(const Params& p, Tensor h, BlockTaps& taps) const {
  taps.check(block_names());
  h = nn::channels_last(h);
  for (const Block& block : blocks_) h = apply(p, block, h, taps, /*taps_only=*/false);
  return apply(p, conv_out_, norm_out_.silu(p, h), taps, /*taps_only=*/false);
}

void ImageCoder::run_taps(const Params& p, Tensor h, BlockTaps& taps) const {
  taps.check(block_names());
  h = nn::channels_last(h);
  for (const Block& block : blocks_) {
    if (taps.complete()) return;
    h = apply(p, block, h, taps, /*taps_only=*/true);
  }
  if (!taps.complete()) apply(p, conv_out_, norm_out_.silu(p, h), taps, /*taps_only=*/true);
}

}  // namespace vpd::models
