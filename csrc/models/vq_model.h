#pragma once
#include "models/image_coder.h"

namespace vpd::models {

// Defaults: the VQ-f4 model of Rombach et al. (2022).
struct VQConfig {
  ImageCoderConfig coder = {.ch_mult = {1, 2, 4}, .z_channels = 3};
  int64_t embed_dim = 3;
  int64_t n_embed = 8192;
  double beta = 0.25;
};

struct Quantised {
  Tensor
      latent;  // [B, embed_dim, h, w]: codebook vectors; its gradient passes straight to the input
  Tensor indices;  // int64 [B, h, w]
  Tensor loss;     // []
};

// The vector-quantised autoencoder of latent diffusion (van den Oord et al. 2017; Esser et al.
// 2021).
class VQModel {
 public:
  explicit VQModel(VQConfig config);
  VQModel(const VQModel&) = delete;

  const ParamTable& table() const { return table_; }

  // image [B, in_channels, H, W] in [-1, 1] -> latent before quantisation [B, embed_dim, H/stride,
  // W/stride]
  Tensor encode(const Params& p, const Tensor& image) const;
  // Nearest codebook vectors of h [B, embed_dim, h, w]. The loss is the original's legacy one,
  // which puts beta on the codebook term: mean((sg(zq) - h)^2) + beta * mean((zq - sg(h))^2), sg =
  // stop gradient.
  Quantised quantise(const Params& p, const Tensor& h) const;
  // h is quantised first unless force_not_quantize -> [B, out_ch, h * stride, w * stride]
  Tensor decode(const Params& p, const Tensor& h, bool force_not_quantize = false) const;

 private:
  VQConfig config_;
  ParamTable table_;
  ImageCoder encoder_;
  ImageCoder decoder_;
  Slot codebook_;
  nn::Conv1x1 quant_conv_;
  nn::Conv1x1 post_quant_conv_;
};

}  // namespace vpd::models
