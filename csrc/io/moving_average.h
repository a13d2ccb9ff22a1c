#pragma once
// The moving average of a U-Net's weights that Stable Diffusion's training keeps beside them, as
// "model_ema." and the name of the weight without its dots.
#include <optional>
#include <string>

#include "io/safetensors.h"

namespace vpd::io {

// The same tensors with the averages in the place of the U-Net's own weights, under their names.
// Without a wish that is done for InstructPix2Pix alone (told by the channels that its U-Net sees),
// whose published code samples with them. A file that has none stays as it is; throws
// std::invalid_argument if they are wanted and it has none, or if it has a part of them.
NamedTensors with_moving_average(const NamedTensors& file, std::optional<bool> wanted,
                                 const std::string& path);

}  // namespace vpd::io
