#include "models/autoencoder.h"

#include <ATen/ops/empty_like.h>

#include "core/check.h"

namespace vpd::models {

namespace {

constexpr const char* kName = "autoencoder";

AutoencoderConfig checked(AutoencoderConfig config) {
  check_image_coder(config.coder, "AutoencoderConfig");
  VPD_CHECK(config.embed_dim > 0, "AutoencoderConfig: embed_dim must be positive, got ",
            config.embed_dim);
  return config;
}

}  // namespace

void check_image(const char* name, const Tensor& image, const ImageCoderConfig& config) {
  VPD_CHECK(image.dim() == 4 && image.size(1) == config.in_channels, name, ": image must be [B, ",
            config.in_channels, ", H, W], got ", image.sizes());
  VPD_CHECK(image.is_floating_point(), name, ": image must be floating point in [-1, 1], got ",
            image.dtype());
  const int64_t height = image.size(2), width = image.size(3), stride = config.stride();
  VPD_CHECK(height > 0 && width > 0 && height % stride == 0 && width % stride == 0, name,
            ": image height and width must be positive multiples of ", stride, ", got ", height,
            " x ", width);
}

void check_latent(const char* name, const Tensor& z, int64_t channels) {
  VPD_CHECK(z.dim() == 4 && z.size(1) == channels && z.size(2) > 0 && z.size(3) > 0, name,
            ": latent must be [B, ", channels, ", h, w], got ", z.sizes());
  VPD_CHECK(z.is_floating_point(), name, ": latent must be floating point, got ", z.dtype());
}

DiagonalGaussian::DiagonalGaussian(const Tensor& moments) {
  const std::vector<Tensor> halves = moments.chunk(2, 1);
  mean_ = halves[0];
  logvar_ = halves[1].clamp(-30.0, 20.0);
}

Tensor DiagonalGaussian::std() const { return (0.5 * logvar_).exp(); }

Tensor DiagonalGaussian::sample(const std::optional<at::Generator>& generator) const {
  Tensor epsilon = at::empty_like(mean_, at::MemoryFormat::Contiguous);
  epsilon.normal_(0.0, 1.0, generator);
  return mean_ + std() * epsilon;
}

Tensor DiagonalGaussian::kl() const {
  // A sum of thousands of terms: half precision is too short for it.
  const auto dtype = mean_.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const Tensor mean = mean_.to(dtype), logvar = logvar_.to(dtype);
  return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).sum({1, 2, 3});
}

AutoencoderKL::AutoencoderKL(AutoencoderConfig config)
    : config_(checked(std::move(config))),
      encoder_(ImageCoder::encoder(table_, config_.coder, 2 * config_.coder.z_channels)),
      decoder_(config_.encode_only
                   ? std::nullopt
                   : std::optional<ImageCoder>(ImageCoder::decoder(table_, config_.coder))),
      quant_conv_(Scope(table_) / "quant_conv", 2 * config_.coder.z_channels,
                  2 * config_.embed_dim),
      // Kept without a decoder too: the original's checkpoints without decoder hold it.
      post_quant_conv_(Scope(table_) / "post_quant_conv", config_.embed_dim,
                       config_.coder.z_channels) {}

std::vector<std::string> AutoencoderKL::block_names() const {
  std::vector<std::string> names = encoder_.block_names();
  if (decoder_) {
    for (std::string& name : decoder_->block_names()) names.push_back(std::move(name));
  }
  return names;
}

Encoded AutoencoderKL::encode(const Params& p, const Tensor& image,
                              const std::vector<std::string>& taps) const {
  check_image(kName, image, config_.coder);
  BlockTaps blocks(taps);
  const Tensor h = encoder_(p, image.to(p[Slot(0)].scalar_type()), blocks);  // [B, 2z, h, w]
  return {DiagonalGaussian(quant_conv_(p, h)), blocks.take()};
}

Tensor AutoencoderKL::decoder_input(const Params& p, const Tensor& z) const {
  VPD_CHECK(decoder_, kName, ": this network was built with encode_only and cannot decode");
  check_latent(kName, z, config_.embed_dim);
  return post_quant_conv_(p, z.to(p[Slot(0)].scalar_type()));
}

Tensor AutoencoderKL::decode(const Params& p, const Tensor& z) const {
  const Tensor h = decoder_input(p, z);  // also checks that there is a decoder
  BlockTaps none({});
  return (*decoder_)(p, h, none);
}

std::map<std::string, Tensor> AutoencoderKL::decode_taps(
    const Params& p, const Tensor& z, const std::vector<std::string>& taps) const {
  const Tensor h = decoder_input(p, z);
  BlockTaps blocks(taps);
  decoder_->run_taps(p, h, blocks);
  return blocks.take();
}

}  // namespace vpd::models
