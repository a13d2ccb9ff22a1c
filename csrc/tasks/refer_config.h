#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "models/autoencoder.h"
#include "models/clip_text.h"
#include "models/unet.h"

namespace vpd::tasks {

// A referring segmenter. Field names are those of vpd.ReferConfig, whose description of them holds.
struct ReferConfig {
  models::UNetConfig unet;
  models::AutoencoderConfig vae;
  models::CLIPTextConfig text;
  int64_t timestep = 1;  // told to the U-Net: noise.embed_t, or noise.noise_t where that is "match"
  double latent_scale = 1.0;  // noise.latent_scale
  int64_t image_size = 512;
  int64_t token_length = 40;
  int64_t hidden = 640;
  std::vector<int64_t> attention = {2, 4};
  models::MapFusion attn_fusion = models::MapFusion::kMean;
  double map_scale = 1.0;
  bool text_adapter = true;
  bool image_in_minus_one_to_one = true;  // image_norm "half"; else the autoencoder sees [0, 1]

  // Strides on the latent grid at which the decoder sees maps.
  std::vector<int64_t> map_strides() const;
};

// What a model's config.json says.
struct ReferModel {
  ReferConfig config;
  std::string foundation;  // whose weights stand for those that the model's file lacks; or ""
};

// Throws std::invalid_argument, starting with `path`, for a file of another task, for fields this
// build does not know and for what a program without Python cannot do: noise on the input,
// posterior samples, denoising, maps of several timesteps.
ReferModel read_refer_model(const std::string& path);

}  // namespace vpd::tasks
