#pragma once
#include "models/unet.h"

namespace vpd::models {

// What a forward runs before the text is met, each latent at each of its timesteps once however
// many rows it serves.
struct UNetStem {
  Tensor latents;                // [S, C, h, w]
  Tensor timesteps;              // [1 or S]
  std::optional<Tensor> repeat;  // int64 [B]: the stem of each row; nullopt: row b has stem b
};

// Of checked inputs. Reads the values of timesteps and image_index when there are several of both.
UNetStem shared_stem(const UNetInputs& inputs);

}  // namespace vpd::models
