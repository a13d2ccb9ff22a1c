#include "models/vq_model.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/embedding.h>

#include "core/check.h"
#include "models/autoencoder.h"

namespace vpd::models {

namespace {

constexpr const char* kName = "vq_model";

VQConfig checked(VQConfig config) {
  check_image_coder(config.coder, "VQConfig");
  VPD_CHECK(config.embed_dim > 0 && config.n_embed > 0,
            "VQConfig: embed_dim and n_embed must be positive, got ", config.embed_dim, " and ",
            config.n_embed);
  return config;
}

// Rows of `codebook` [K, C] nearest to each row of `vectors` [M, C] -> int64 [M].
Tensor nearest(const Tensor& vectors, const Tensor& codebook) {
  const at::NoGradGuard no_grad;
  // |v|^2 is the same for every code and left out. In pieces: M x K distances would not fit for
  // large images.
  constexpr int64_t kRows = 4096;
  const Tensor half_norms = 0.5 * codebook.square().sum(1);  // [K]
  std::vector<Tensor> pieces;
  for (const Tensor& piece : vectors.split(kRows)) {
    pieces.push_back((half_norms - piece.matmul(codebook.t())).argmin(1));
  }
  return at::cat(pieces);
}

}  // namespace

VQModel::VQModel(VQConfig config)
    : config_(checked(std::move(config))),
      encoder_(ImageCoder::encoder(table_, config_.coder, config_.coder.z_channels)),
      decoder_(ImageCoder::decoder(table_, config_.coder)),
      codebook_((Scope(table_) / "quantize" / "embedding")
                    .declare("weight", {config_.n_embed, config_.embed_dim},
                             Init::uniform(1.0 / static_cast<double>(config_.n_embed)))),
      quant_conv_(Scope(table_) / "quant_conv", config_.coder.z_channels, config_.embed_dim),
      post_quant_conv_(Scope(table_) / "post_quant_conv", config_.embed_dim,
                       config_.coder.z_channels) {}

Tensor VQModel::encode(const Params& p, const Tensor& image) const {
  check_image(kName, image, config_.coder);
  BlockTaps none({});
  return quant_conv_(p, encoder_(p, image.to(p[Slot(0)].scalar_type()), none));
}

Quantised VQModel::quantise(const Params& p, const Tensor& h) const {
  check_latent(kName, h, config_.embed_dim);
  const Tensor codebook = p[codebook_];
  const Tensor vectors = h.permute({0, 2, 3, 1});  // [B, h, w, C]
  const Tensor flat = vectors.reshape({-1, config_.embed_dim}).to(codebook.scalar_type());
  const Tensor indices = nearest(flat, codebook).reshape({h.size(0), h.size(2), h.size(3)});
  const Tensor codes = at::embedding(codebook, indices);  // [B, h, w, C]
  const Tensor loss = (codes.detach() - vectors).square().mean() +
                      config_.beta * (codes - vectors.detach()).square().mean();
  const Tensor straight_through = vectors + (codes - vectors).detach();
  return {straight_through.permute({0, 3, 1, 2}), indices, loss};
}

Tensor VQModel::decode(const Params& p, const Tensor& h, bool force_not_quantize) const {
  check_latent(kName, h, config_.embed_dim);
  const Tensor latent = force_not_quantize ? h : quantise(p, h).latent;
  BlockTaps none({});
  return decoder_(p, post_quant_conv_(p, latent.to(p[Slot(0)].scalar_type())), none);
}

}  // namespace vpd::models
