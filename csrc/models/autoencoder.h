#pragma once
#include "models/image_coder.h"

namespace vpd::models {

struct AutoencoderConfig {
  ImageCoderConfig coder;
  int64_t embed_dim = 4;     // channels of the latent
  bool encode_only = false;  // no decoder (VPD's checkpoints have none)
};

// Diagonal Gaussian over latents, log variance clamped to [-30, 20].
class DiagonalGaussian {
 public:
  explicit DiagonalGaussian(const Tensor& moments);  // [B, 2C, h, w]: mean, log variance
  const Tensor& mean() const { return mean_; }       // [B, C, h, w], also the mode
  const Tensor& logvar() const { return logvar_; }   // [B, C, h, w]
  Tensor std() const;                                // [B, C, h, w]
  // mean + std * epsilon; gradients flow to the moments (Kingma and Welling 2014)
  Tensor sample(const std::optional<at::Generator>& generator = std::nullopt) const;
  // Divergence from the standard normal, summed over C, h, w -> [B]
  Tensor kl() const;

 private:
  Tensor mean_;
  Tensor logvar_;
};

struct Encoded {
  DiagonalGaussian posterior;
  std::map<std::string, Tensor> blocks;  // "encoder.down.1.block.0:input" -> tensor
};

// The KL-regularised image autoencoder of latent diffusion (Rombach et al. 2022). Latents are
// unscaled.
class AutoencoderKL {
 public:
  explicit AutoencoderKL(AutoencoderConfig config);
  AutoencoderKL(const AutoencoderKL&) = delete;

  const ParamTable& table() const { return table_; }
  std::vector<std::string> block_names() const;

  // image [B, in_channels, H, W] in [-1, 1], H and W multiples of the stride
  Encoded encode(const Params& p, const Tensor& image,
                 const std::vector<std::string>& taps = {}) const;
  // z [B, embed_dim, h, w] -> [B, out_ch, h * stride, w * stride], not clamped
  Tensor decode(const Params& p, const Tensor& z) const;
  // The tapped blocks of the decoder; runs no further than the last of them.
  std::map<std::string, Tensor> decode_taps(const Params& p, const Tensor& z,
                                            const std::vector<std::string>& taps) const;

 private:
  Tensor decoder_input(const Params& p, const Tensor& z) const;

  AutoencoderConfig config_;
  ParamTable table_;
  ImageCoder encoder_;
  std::optional<ImageCoder> decoder_;
  nn::Conv1x1 quant_conv_;
  nn::Conv1x1 post_quant_conv_;
};

// Shared input checks of the autoencoders; `name` is who complains.
void check_image(const char* name, const Tensor& image, const ImageCoderConfig& config);
void check_latent(const char* name, const Tensor& z, int64_t channels);

}  // namespace vpd::models
