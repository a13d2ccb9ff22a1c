#pragma once
// Any file of weights, told apart by its content, never by its name.
#include <string>
#include <vector>

#include "io/safetensors.h"

namespace vpd::io {

struct WeightsFile {
  std::string format;  // "safetensors" or "torch"
  NamedTensors tensors;
  Metadata metadata;                 // safetensors
  std::string entry;                 // torch: see TorchFile
  std::vector<std::string> skipped;  // torch
};

WeightsFile read_weights(const std::string& path);

}  // namespace vpd::io
