#pragma once
#include <cmath>

#include "core/params.h"

namespace vpd::nn {

// Uniform, with the variance between those that keep activations and gradients (Glorot and Bengio
// 2010).
inline Init xavier(int64_t in, int64_t out, int64_t kernel = 1) {
  return Init::uniform(std::sqrt(6.0 / static_cast<double>((in + out) * kernel * kernel)));
}

}  // namespace vpd::nn
